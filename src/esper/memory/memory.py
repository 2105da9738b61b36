"""The memory as its users see it. Delegates: knows who does what, and does none of it."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, ParamSpec, Self, TypeVar, overload

import msgspec

from esper.errors import ConfigurationError, EpisodeError
from esper.memory.checkpoints import Checkpoints
from esper.memory.forgetting import Forgetting, Swept
from esper.memory.identity import Clock, system_clock
from esper.memory.journal import MemoryJournal, Options
from esper.memory.recall.advise import Advice
from esper.memory.recall.answers import Recalled
from esper.memory.recall.cache import CacheReport
from esper.memory.recall.context import ContextPack, pack
from esper.memory.recall.playbooks import Guide, Heuristic, Playbook
from esper.memory.recall.search import Asked
from esper.memory.recorded import recorded
from esper.memory.recording import Recording
from esper.memory.records import Episode, Item, Lesson, Opening, Outcome, Value
from esper.memory.relations import Relations
from esper.memory.stores.opening import open_store
from esper.memory.stores.store import Filter, Store
from esper.memory.tags import Tags
from esper.memory.transfer.importing import Importing
from esper.memory.transfer.transfer import Transfer
from esper.memory.upkeep import Upkeep

if TYPE_CHECKING:
    from esper.memory.recall.embeddings import Embedder

P = ParamSpec("P")
R = TypeVar("R")

_CONTEXT_ITEMS = 40


class Memory:
    """Records episodes, learns when they end, and answers the next time. Safe from several threads and processes.

    ``location`` is a file, ``":memory:"``, a URL or a store; by default the project's ``.esper/memory.db``. With an
    ``embedder`` recall looks for meaning, too; without one, or while it does not answer, for words alone.

    Raises:
        MemoryStoreError: it cannot be opened.
    """

    def __init__(
        self,
        location: str | Path | Store | None = None,
        *,
        namespace: str = "default",
        options: Options | None = None,
        clock: Clock = system_clock,
        embedder: Embedder | None = None,
    ) -> None:
        told = options or Options()
        self.store = _store_at(location, power=told.durability == "power")
        self.namespace = namespace
        self._clock = clock
        self._journal = MemoryJournal(self.store, clock, told, embedder=embedder)
        self.tags = Tags(self.store)
        self.relations = Relations(self.store, clock)
        self.checkpoints = Checkpoints(self.store, clock)
        self.upkeep = Upkeep(self.store, clock, namespace, self._journal.flush, self._journal.timings)
        importing = Importing(self.store, clock, namespace, self._journal.redact, told.learning)
        self.transfer = Transfer(self.store, namespace, importing, self._journal.flush)
        self._guide = Guide(self.store, clock)
        self._forgetting = Forgetting(self.store, clock, told.learning.min_episodes)
        self._close = weakref.finalize(self, self._journal.close)

    def episode(
        self,
        task: str,
        *,
        task_type: str = "",
        domain: str = "",
        namespace: str | None = None,
        tags: Iterable[str] = (),
        **context: Value,
    ) -> Recording:
        """Start an episode; use it in a ``with`` block, or end it yourself. Further keywords are its context."""
        return Recording(
            self._journal,
            Opening(
                task=task,
                task_type=task_type,
                domain=domain,
                namespace=self.namespace if namespace is None else namespace,
                tags=tuple(tags),
                context=context,
            ),
        )

    @overload
    def record(self, function: Callable[P, R]) -> Callable[P, R]: ...

    @overload
    def record(
        self, *, task: str = "", task_type: str = "", domain: str = ""
    ) -> Callable[[Callable[P, R]], Callable[P, R]]: ...

    def record(
        self, function: Callable[P, R] | None = None, *, task: str = "", task_type: str = "", domain: str = ""
    ) -> Callable[P, R] | Callable[[Callable[P, R]], Callable[P, R]]:
        """Make every call of a function an episode: ``@memory.record`` or ``@memory.record(task=...)``.

        The task is the function's name unless it is given; the arguments are the parameters of its one step.
        """

        def decorate(wrapped: Callable[P, R]) -> Callable[P, R]:
            words = task or wrapped.__name__.replace("_", " ")
            return recorded(wrapped, lambda: self.episode(words, task_type=task_type, domain=domain))

        return decorate if function is None else decorate(function)

    def resume(self, id: str) -> Recording:
        """An open episode again, after another process or agent left it.

        Raises:
            EpisodeError: it is not there, or has ended.
        """
        found = self.get(id, steps=False)
        if found.state != "open":
            raise EpisodeError(f"episode {id} is {found.state}: only an open one can go on")
        return Recording(self._journal, found, id=id, last=self.store.episodes.last_number(id))

    def complete(self, id: str, outcome: Outcome) -> Episode:
        """End an open episode by its id, and learn from it."""
        return self._journal.complete(id, outcome)

    def get(self, id: str, *, steps: bool = True) -> Episode:
        """One episode. Raises ``EpisodeError`` when it is not there."""
        found = self.get_many([id], steps=steps).get(id)
        if found is None:
            raise EpisodeError(f"there is no episode {id}")
        return found

    def get_many(self, ids: Sequence[str], *, steps: bool = True) -> dict[str, Episode]:
        """The episodes that are there, in the order of ``ids``; what is missing is not among the keys."""
        self._journal.flush()
        return self.store.episodes.get(ids, steps=steps)

    def episodes(
        self, filter: Filter | None = None, *, limit: int = 100, before: str | None = None
    ) -> list[Episode]:
        """Episodes without their steps, newest first; ``before`` (an id) continues a list."""
        self._journal.flush()
        return self.store.episodes.find(self._own(filter), limit=limit, before=before)

    def patterns(self, filter: Filter | None = None, *, limit: int = 100) -> list[Item]:
        """Patterns by trust, then by occurrences; retired ones too unless the filter's state says otherwise."""
        wanted = msgspec.structs.replace(self._own(filter), kinds=("pattern",))
        return self.store.items.find(wanted, limit=limit)

    def note(
        self,
        text: str,
        *,
        title: str = "",
        tags: Iterable[str] = (),
        namespace: str | None = None,
        thread: str = "",
        **context: Value,
    ) -> Item:
        """Remember a text with its context; it is recalled like everything else.

        ``title`` is its subject, or who said it. Notes of one ``thread`` (a conversation, a run) are found by the words
        of the two before them, too.
        """
        space = self.namespace if namespace is None else namespace
        return self._journal.note(Lesson(text=text, title=title, context=context), space, tuple(tags), thread)

    def recall(
        self, query: str, *, k: int = 5, filter: Filter | None = None, task_type: str = "", domain: str = ""
    ) -> Recalled:
        """The ``k`` items that fit a query best; empty when nothing is relevant.

        ``filter`` says what may come at all; ``task_type`` and ``domain`` say what is preferred.
        """
        asked = Asked(query=query, filter=self._own(filter), k=k, task_type=task_type, domain=domain)
        return self._journal.recall(asked)

    def context(
        self, task: str, *, budget_tokens: int = 1_000, task_type: str = "", domain: str = ""
    ) -> ContextPack:
        """Lessons, patterns and pitfalls for a prompt, within a budget of tokens (estimated at three bytes each)."""
        found = self.recall(task, k=_CONTEXT_ITEMS, task_type=task_type, domain=domain)
        episodes = [answer for answer in found if answer.item.kind == "episode"]
        ids = [id for answer in episodes for id in (answer.id, *answer.alike)]
        return pack(found.answers, self.get_many(ids, steps=False), budget_tokens, found.exposure)

    def advise(
        self,
        context: Mapping[str, Value],
        actions: Sequence[str],
        *,
        k: int | None = None,
        numeric: bool = False,
    ) -> Advice:
        """For each action the chance of success, or with ``numeric`` the mean value, in situations like this one.

        An action is a tool or a step's action, as it was recorded. The feature ``after`` may say what was done before,
        in the words of the decision patterns: ``after pytest failed``. Best first, at most ``k``.
        """
        return self._journal.advise(self.namespace, context, actions, k=k, numeric=numeric)

    def playbook(self, *, task_type: str = "", domain: str = "") -> Playbook | None:
        """The most trusted way for a kind of task; ``None`` when there is none yet."""
        return self._guide.playbook(self.namespace, task_type, domain)

    def heuristics(self, *, limit: int = 20) -> list[Heuristic]:
        """Condition → action, by confidence, where episodes show that it helps."""
        return self._guide.heuristics(self.namespace, limit)

    def feedback(self, recalled: Recalled | str, used: Iterable[str], *, reward: float | None = None) -> None:
        """These items of a recall were used; with a reward in [0, 1] they earn or lose trust at once.

        Raises:
            EpisodeError: the reward lies outside [0, 1], or an item was not shown.
        """
        exposure = recalled if isinstance(recalled, str) else recalled.exposure
        self._journal.feedback(exposure, used, reward)

    def forget(self, *, episode: str | None = None, namespace: str | None = None) -> int:
        """Erase an episode or a whole namespace, derived evidence too; how many episodes were erased.

        Raises:
            EpisodeError: neither or both are given, or the episode is not there.
        """
        self._journal.flush()
        erased = self._forgetting.forget(episode=episode, namespace=namespace)
        self._journal.search.forget()
        return erased

    def retain(self, *, older_than: int) -> Swept:
        """Erase this namespace's episodes that are older, in seconds, save the only evidence of a pattern."""
        self._journal.flush()
        swept = self._forgetting.retain(self.namespace, older_than)
        self._journal.search.forget()
        return swept

    def maintain(self) -> Swept:
        """Retire what was often shown and never used, and what has not been seen or used for long."""
        self._journal.flush()
        return self._forgetting.maintain(self.namespace)

    def embed_again(self) -> int:
        """Give every item that lacks a vector of the present embedder one; how many that were.

        Recall does it for some items at a time; call this for many, or after a change of model.

        Raises:
            ConfigurationError: the memory was opened without an embedder.
            EmbeddingError: the provider failed; what it gave before is kept.
        """
        if self._journal.search.meaning is None:
            raise ConfigurationError(
                "there is no embedder: give Memory(..., embedder=...), or --embedder in a shell"
            )
        return self._journal.search.meaning.embed_again()

    def cache_report(self) -> CacheReport:
        """How often the query cache had the answer."""
        return self._journal.search.report()

    def flush(self) -> None:
        """Everything queued is stored when this returns."""
        self._journal.flush()

    def close(self) -> None:
        """Flush, and give the store back; a second call does nothing."""
        self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _own(self, filter: Filter | None) -> Filter:
        return Filter(namespace=self.namespace) if filter is None else filter


def _store_at(location: str | Path | Store | None, *, power: bool) -> Store:
    if location is None or isinstance(location, str | Path):
        return open_store(location, power=power)
    return location
