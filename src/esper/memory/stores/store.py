"""The contract of a memory store. Does not know how anything is learned or ranked.

Every method that writes is one transaction of its own, or joins the one that ``transaction()`` opened in this thread.
A write is acknowledged when the outermost transaction returns: it then survives ``kill -9`` (``process``), or a power
loss if the store was opened with ``power``. A transaction that raises leaves nothing behind. Methods may be called from
any thread and several processes may hold one store. Order is always defined: the same content gives the same answer.
What cannot be read or written raises ``MemoryStoreError``; an id that is not there is left out of a batch's answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Literal, Protocol

import msgspec

from esper.memory.records import (
    Checkpoint,
    Episode,
    Evidence,
    Exposure,
    Feedback,
    Item,
    ItemKind,
    ItemState,
    PatternKind,
    Relation,
    State,
    Step,
    Tally,
    Value,
)


class Effort(msgspec.Struct, frozen=True):
    """What one completed episode cost; ``seconds`` from start to end, ``started`` when it began."""

    num_steps: int
    seconds: float
    tokens: int
    started: int = 0


class Sighting(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """One signature seen in one episode: between which steps, and the reward that came of it."""

    signature: int
    first: int
    last: int
    reward: float


class Support(msgspec.Struct, frozen=True, gc=False):
    """In how many episodes a signature was seen that is no pattern yet, and the sum of their rewards."""

    seen: int
    won: float


class Experience(msgspec.Struct, frozen=True):
    """One episode in which a signature was seen: its situation, its reward and, where it was a number, its value."""

    episode: str
    reward: float
    value: float | None
    situation: dict[str, Value]


class SearchText(msgspec.Struct, frozen=True):
    """The words by which an item is found: what it is about, its context, what was done, what was said before."""

    title: str
    context: str = ""
    detail: str = ""
    nearby: str = ""


class Filter(msgspec.Struct, frozen=True, kw_only=True):
    """Which records: every condition that is given must hold; ``any_tags`` asks for one, ``all_tags`` for each."""

    namespace: str | None = None
    task_type: str | None = None
    domain: str | None = None
    state: State | ItemState | None = None
    kinds: tuple[ItemKind, ...] = ()
    patterns: tuple[PatternKind, ...] = ()
    any_tags: tuple[str, ...] = ()
    all_tags: tuple[str, ...] = ()
    since: int | None = None
    until: int | None = None


class Hit(msgspec.Struct, frozen=True):
    """An item found by words; ``relevance`` is its BM25, larger is better."""

    item: Item
    relevance: float


class Embedded(msgspec.Struct, frozen=True):
    """An item's embedding, float32, little-endian; ``place`` grows with every item that is added."""

    place: int
    id: str
    namespace: str
    vector: bytes


class Episodes(Protocol):
    """Episodes and their steps."""

    def add(self, episodes: Iterable[Episode]) -> None:
        """Write new episodes; their steps are not looked at."""
        ...

    def add_steps(self, steps: Iterable[tuple[str, Step]]) -> None:
        """Write steps, each with its episode's id.

        Raises ``EpisodeError`` for an episode that is not there or not open, and for a number that is there already.
        """
        ...

    def finish(self, episode: Episode, seen: Sequence[Sighting] = ()) -> None:
        """Write state, end, outcome, score, reflection and credit, and all that was seen in it, a signature once.

        Raises ``EpisodeError`` unless it was open.
        """
        ...

    def get(self, ids: Sequence[str], *, steps: bool = True) -> dict[str, Episode]:
        """The episodes that are there, in the order of ``ids``, by one query (and one for the steps)."""
        ...

    def tail(self, id: str, limit: int) -> list[Step]:
        """The last ``limit`` steps, in order."""
        ...

    def last_number(self, id: str) -> int:
        """The largest step number, 0 without steps. Raises ``EpisodeError`` when there is no such episode."""
        ...

    def find(self, filter: Filter, *, limit: int = 100, before: str | None = None) -> list[Episode]:
        """Episodes without steps, newest first; ``before`` (an id) continues a list."""
        ...

    def efforts(self, like: Episode, limit: int) -> list[Effort]:
        """The latest successful episodes of the same namespace, task type and domain, newest first."""
        ...

    def sizes(self, ids: Sequence[str]) -> dict[str, int]:
        """How many bytes the texts and contents of episodes and their steps take."""
        ...

    def forget(self, ids: Sequence[str]) -> None:
        """Erase episodes, their steps, item, sightings, exposures, tags, relations and checkpoints."""
        ...


class Items(Protocol):
    """Everything that can be recalled."""

    def add(self, items: Iterable[tuple[Item, SearchText]]) -> None:
        """Write new items and index their words."""
        ...

    def update(self, tallies: Mapping[str, Tally]) -> None:
        """Write tallies by id, all but ``shown``, which the exposures count."""
        ...

    def update_signed(self, tallies: Mapping[int, Tally]) -> None:
        """Write tallies of patterns by signature, all but ``shown``."""
        ...

    def rewrite(self, item: Item, text: SearchText) -> None:
        """Replace lesson and words of an item that is there."""
        ...

    def get(self, ids: Sequence[str], *, filter: Filter | None = None) -> dict[str, Item]:
        """The items that are there (and fit the filter), in the order of ``ids``, by one query."""
        ...

    def signed(self, signatures: Sequence[int]) -> dict[int, Item]:
        """The patterns with these signatures."""
        ...

    def tallies(self, signatures: Sequence[int]) -> dict[int, Tally]:
        """The tallies of the patterns with these signatures."""
        ...

    def warnings(self, signatures: Sequence[int]) -> set[int]:
        """Those of these signatures that are anti-patterns."""
        ...

    def thread(self, namespace: str, thread: str, limit: int) -> list[Item]:
        """The last ``limit`` items of a thread, oldest first."""
        ...

    def size(self) -> int:
        """About how many items there are, never fewer; answered at once."""
        ...

    def frequencies(self, terms: Sequence[str]) -> dict[str, int]:
        """In how many items each term stands; 0 for one that stands in none."""
        ...

    def num_held(self, id: str, terms: Sequence[str]) -> int:
        """How many of these terms stand in an item."""
        ...

    def put_vectors(self, model: str, vectors: Mapping[str, bytes]) -> None:
        """Keep an embedding for each item id, in place of any other; float32, little-endian."""
        ...

    def vectors(self, model: str, *, after: int = 0, limit: int = 10_000) -> list[Embedded]:
        """Embeddings of a model in the order of places, from behind the place ``after``."""
        ...

    def unembedded(self, model: str, limit: int, *, after: int = 0) -> list[tuple[int, Item]]:
        """Items behind the place ``after`` that have no embedding of this model, each with its place, in order."""
        ...

    def search(self, terms: Sequence[str], filter: Filter, limit: int) -> list[Hit]:
        """Items that hold any of the terms (whole words, stemmed), best first; no syntax in a term means anything."""
        ...

    def find(self, filter: Filter, *, limit: int = 100) -> list[Item]:
        """Items by trust, then occurrences, both descending."""
        ...

    def forget(self, ids: Sequence[str]) -> None:
        """Erase items and their words."""
        ...


class Sightings(Protocol):
    """What was seen in which episode, written when it ends: the evidence behind every pattern."""

    def counts(self, signatures: Sequence[int]) -> dict[int, int]:
        """In how many distinct episodes each signature was seen; those never seen are left out."""
        ...

    def evidence(self, signature: int, limit: int) -> list[Evidence]:
        """The latest evidence, newest first."""
        ...

    def experiences(self, signature: int, limit: int) -> list[Experience]:
        """The latest episodes in which it was seen, newest first."""
        ...

    def of_episode(self, episode: str) -> list[int]:
        """The signatures that were seen in an episode."""
        ...

    def support(self, signatures: Sequence[int]) -> dict[int, Support]:
        """What was put for these signatures, less the episodes that were forgotten since."""
        ...

    def put_support(self, support: Mapping[int, Support]) -> None:
        """Write the support of signatures, in place of what was there."""
        ...

    def habits(self, namespace: str, scopes: Sequence[str]) -> dict[str, dict[str, float]]:
        """How often each thing was done in each of these kinds of task, by name; empty for what is not known."""
        ...

    def put_habits(self, namespace: str, habits: Mapping[str, Mapping[str, float]]) -> None:
        """Write the habits of kinds of task, in place of those that were there."""
        ...

    def in_episode(self, episode: str) -> list[Sighting]:
        """All that was seen in an episode, by signature."""
        ...


class Exposures(Protocol):
    """What was shown, what was used, and how it ended."""

    def add(self, exposures: Iterable[Exposure]) -> None:
        """Write exposures; their items count as shown. Items that are gone are left out."""
        ...

    def get(self, id: str) -> Exposure | None:
        """One exposure."""
        ...

    def of_episode(self, episode: str) -> dict[str, str]:
        """The items shown in an episode, each with its latest exposure."""
        ...

    def use(self, feedback: Iterable[Feedback]) -> None:
        """Note that items of an exposure were used, and the reward where it is known."""
        ...

    def pending(self, episode: str) -> list[Feedback]:
        """What was used in an episode and has no reward yet."""
        ...

    def rewards(self, item: str) -> list[Feedback]:
        """Every use of an item that has a reward, oldest first."""
        ...

    def find(self, namespace: str, *, after: str = "", limit: int = 100) -> list[Exposure]:
        """Exposures by id, from behind the id ``after``; of items that are gone nothing is told."""
        ...

    def uses(self, exposure: str) -> list[Feedback]:
        """What of an exposure was used, best first."""
        ...


class Catalogue(Protocol):
    """Tags, relations and checkpoints."""

    def tag(self, subject: str, names: Iterable[str]) -> None:
        """Add tags to an episode or item."""
        ...

    def untag(self, subject: str, names: Iterable[str]) -> None:
        """Take tags away."""
        ...

    def rename_tag(self, old: str, new: str) -> int:
        """Rename everywhere, merging where ``new`` is there; how many subjects were touched."""
        ...

    def tags(self) -> dict[str, int]:
        """Every tag with the number of its subjects, most used first."""
        ...

    def relate(self, relation: Relation) -> None:
        """Write a relation; one that is there stays as it is."""
        ...

    def unrelate(self, relation: Relation) -> None:
        """Take a relation away."""
        ...

    def relations(self, id: str, *, direction: Literal["from", "to"], type: str = "") -> list[Relation]:
        """Relations from or to an id, by type and time."""
        ...

    def checkpoint(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint."""
        ...

    def checkpoints(self, episode: str) -> list[Checkpoint]:
        """An episode's checkpoints, oldest first."""
        ...


class Neighbours(Protocol):
    """Compares embeddings inside the database; vectors are given as in ``Embedded``."""

    def take_in(self, model: str, after: int) -> int:
        """Index a model's embeddings that are new behind the place ``after``; the place of the model's last."""
        ...

    def nearest(self, model: str, vector: bytes, namespace: str | None, k: int) -> dict[str, float]:
        """The ``k`` largest cosines in a namespace (``None``: all), by item id, largest first."""
        ...

    def cosines(self, model: str, vector: bytes, ids: Sequence[str]) -> dict[str, float]:
        """Cosines of those of these items that have a vector."""
        ...


class Store(Protocol):
    """One memory, whole. The parts share its transactions."""

    @property
    def episodes(self) -> Episodes:
        """Episodes and their steps."""
        ...

    @property
    def items(self) -> Items:
        """Everything that can be recalled."""
        ...

    @property
    def neighbours(self) -> Neighbours | None:
        """Where the database itself was asked to compare embeddings; else whoever searches reads them all."""
        ...

    @property
    def sightings(self) -> Sightings:
        """The evidence behind patterns."""
        ...

    @property
    def exposures(self) -> Exposures:
        """What was shown and used."""
        ...

    @property
    def catalogue(self) -> Catalogue:
        """Tags, relations and checkpoints."""
        ...

    def transaction(self) -> AbstractContextManager[None]:
        """All or nothing; may be nested, the outermost decides. Other writers wait, readers do not."""
        ...

    def appending(self) -> AbstractContextManager[None]:
        """A transaction that only adds episodes and steps: where the database can do it, others append meanwhile."""
        ...

    def stamp(self, namespace: str | None) -> int:
        """Grows whenever what can be recalled from a namespace (``None``: any) changes, in whatever process."""
        ...

    def touch(self, namespace: str) -> int:
        """Make the stamp of a namespace grow; what it is then.

        Whoever changes patterns or what supports them does so in a transaction that ends with this.
        """
        ...

    def forget_namespace(self, namespace: str) -> int:
        """Erase everything in a namespace; how many episodes that were."""
        ...

    def counts(self, namespace: str | None = None) -> dict[str, int]:
        """How many records of each kind there are."""
        ...

    def namespaces(self) -> list[str]:
        """Every namespace that holds an episode or an item, by name."""
        ...

    def check(self) -> list[str]:
        """What is wrong inside the database; empty when all is well."""
        ...

    def backup(self, target: Path) -> None:
        """Copy everything into a file, which appears only when it is complete.

        Raises ``MemoryStoreError`` where that is the server's own business; the message says how.
        """
        ...

    def vacuum(self) -> None:
        """Give unused space back; what was forgotten can then not be found in the file by any means."""
        ...

    def close(self) -> None:
        """Give everything back; a second call does nothing."""
        ...
