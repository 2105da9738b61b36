"""All that an open memory is made of, wired once: writers, completion, search. Does not know the public names."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from time import perf_counter
from typing import TYPE_CHECKING, Final, Literal

import msgspec

from esper.errors import EpisodeError
from esper.memory.completion import Completion, Learning, settle
from esper.memory.identity import Clock, new_id
from esper.memory.learning.choices import choice_signature, decision_signature
from esper.memory.metrics import Span, Timings
from esper.memory.noting import words_of_note
from esper.memory.recall.advise import Advice, advise
from esper.memory.recall.answers import Recalled
from esper.memory.recall.search import Asked, Scoring, Search
from esper.memory.recording import Recording, Taken, entry_id, write_entries
from esper.memory.records import Durability, Episode, Exposure, Feedback, Item, Lesson, Outcome, Tally, Value
from esper.memory.redaction import Redactor
from esper.memory.stores.store import Experience, Filter, Store
from esper.memory.writing import Writer

if TYPE_CHECKING:
    from esper.memory.recall.embeddings import Embedder
    from esper.memory.recall.meaning import Meaning

_EXPOSURES: Final = 64
_EXPOSURE_SECONDS: Final = 5.0
_EXPERIENCES: Final = 500


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What is seldom changed.

    ``durability``: ``process`` survives ``kill -9``, ``power`` a power loss. With ``max_batch`` above 1 steps are
    queued until there are so many or ``flush_interval`` seconds have passed. ``redact=False`` keeps secrets.
    ``scoring`` weighs what is recalled, and says below what nothing is relevant. ``trace`` is told, in whatever thread,
    of each recall, completion and write, with the ids of what it was about; it must not raise.
    """

    durability: Literal["process", "power"] = "process"
    max_batch: int = 1
    flush_interval: float = 1.0
    redact: bool = True
    learning: Learning = Learning()
    scoring: Scoring = Scoring()
    trace: Callable[[Span], object] | None = None


class MemoryJournal:
    """Fulfils ``Journal`` on a store; ``clock`` gives nanoseconds since the epoch."""

    put: Callable[[Recording | Taken], Durability]

    def __init__(
        self, store: Store, clock: Clock, options: Options, *, embedder: Embedder | None = None
    ) -> None:
        self.store = store
        self.clock = clock
        self.timings = Timings(clock, options.trace)
        self.redact = Redactor(secrets=options.redact)
        self._taken: Writer[Recording | Taken] = Writer(
            self._write,
            durability=options.durability,
            max_batch=options.max_batch,
            flush_interval=options.flush_interval,
        )
        self._shown: Writer[Exposure] = Writer(
            store.exposures.add, max_batch=_EXPOSURES, flush_interval=_EXPOSURE_SECONDS
        )
        self.put = self._taken.put
        self._completion = Completion(store, self.redact, options.learning)
        self.search = Search(
            store, clock, self._expose, scoring=options.scoring, meaning=_meaning(store, embedder)
        )
        self.min_episodes = options.learning.min_episodes

    def _write(self, entries: Sequence[Recording | Taken]) -> None:
        self._shown.flush()  # what was shown before a step is stored no later than the step
        begun = perf_counter()
        write_entries(self.store, self.redact, entries)
        self.timings.add("write", perf_counter() - begun, (entry_id(entry) for entry in entries))

    def complete(self, id: str, outcome: Outcome) -> Episode:
        """End an open episode and learn from it, in one transaction."""
        self.flush()
        begun = perf_counter()
        done = self._completion.complete(id, outcome, self.clock())
        self.timings.add("complete", perf_counter() - begun, (id,))
        return done

    def abandon(self, id: str) -> Episode:
        """Give an open episode up; nothing is learned from it."""
        self.flush()
        return self._completion.abandon(id, self.clock())

    def expose(self, id: str, query: str, k: int) -> Recalled:
        """Recall inside the open episode ``id``, in its namespace and situation."""
        self._taken.flush()
        found = self.store.episodes.get([id], steps=False)[id]
        filter = Filter(namespace=found.namespace)
        asked = Asked(query=query, filter=filter, k=k, task_type=found.task_type, domain=found.domain)
        return self.recall(asked, episode=id)

    def recall(self, asked: Asked, *, episode: str | None = None) -> Recalled:
        """Recall in or outside an episode."""
        begun = perf_counter()
        found = self.search.recall(asked, episode=episode)
        self.timings.add("recall", perf_counter() - begun, (found.exposure, episode or found.exposure))
        return found

    def use(self, id: str, items: Iterable[str]) -> None:
        """Note what was used in an open episode; its end decides what that was worth."""
        self._shown.flush()
        with self.store.transaction():
            shown = self.store.exposures.of_episode(id)
            for item in items:
                if item not in shown:
                    raise EpisodeError(f"{item} was not recalled in episode {id}")
                self.store.exposures.use([Feedback(exposure=shown[item], item=item, at=self.clock())])

    def note(self, lesson: Lesson, namespace: str, tags: Sequence[str], thread: str) -> Item:
        """Remember a text."""
        self._shown.flush()
        now, told = self.clock(), self.redact(lesson)
        namespace, thread, *tags = map(self.redact.text, (namespace, thread, *tags))
        item = Item(
            id=new_id(now),
            kind="note",
            lesson=told,
            namespace=namespace,
            thread=thread,
            created=now,
            tally=Tally(touched=now),
        )
        with self.store.transaction():
            self.store.items.add([(item, words_of_note(self.store, item, tags))])
            self.store.catalogue.tag(item.id, tags)
            self.store.touch(namespace)
        return item

    def feedback(self, exposure: str, used: Iterable[str], reward: float | None) -> None:
        """Items of an exposure were used; with a reward they earn or lose trust at once."""
        if reward is not None and not 0.0 <= reward <= 1.0:
            raise EpisodeError(f"reward is {reward}: give a number from 0 to 1")
        self._shown.flush()
        found = self.store.exposures.get(exposure)
        if found is None:
            raise EpisodeError(f"there is no recall {exposure}")
        with self.store.transaction():
            for id in dict.fromkeys(used):
                if id not in found.items:
                    raise EpisodeError(f"{id} was not shown by recall {exposure}")
                settle(self.store, Feedback(exposure=exposure, item=id, reward=reward, at=self.clock()))
            items = self.store.items.get(found.items) if reward is not None else {}
            for space in {item.namespace for item in items.values()}:
                self.store.touch(space)

    def _expose(self, exposure: Exposure) -> None:
        query = self.redact.text(exposure.query)
        self._shown.put(
            exposure if query == exposure.query else msgspec.structs.replace(exposure, query=query)
        )

    def advise(
        self,
        namespace: str,
        context: Mapping[str, Value],
        actions: Sequence[str],
        *,
        k: int | None,
        numeric: bool,
    ) -> Advice:
        """A posterior for each action in situations like this one; what was looked at is exposed."""
        experiences = {action: self._experiences(namespace, context, action) for action in actions}
        told = advise(context, experiences, numeric=numeric)[:k]
        now = self.clock()
        shown = tuple(dict.fromkeys(id for one in told for id in one.evidence))
        words = ", ".join(f"{name}={value}" for name, value in sorted(context.items()))
        exposure = Exposure(
            id=new_id(now), query=f"advise: {words}", items=shown, namespace=namespace, at=now
        )
        self._expose(exposure)
        return Advice(exposure.id, told)

    def _experiences(self, namespace: str, context: Mapping[str, Value], action: str) -> list[Experience]:
        """Those after the same step come first; each episode counts once."""
        after = str(context.get("after", ""))
        exact = (
            self.store.sightings.experiences(decision_signature(namespace, after, action), _EXPERIENCES)
            if after
            else []
        )
        told = {
            one.episode: msgspec.structs.replace(one, situation=one.situation | {"after": after})
            for one in exact
        }
        for one in self.store.sightings.experiences(choice_signature(namespace, action), _EXPERIENCES):
            told.setdefault(one.episode, one)
        return list(told.values())

    def flush(self) -> None:
        """Everything queued is stored when this returns."""
        self._taken.flush()
        self._shown.flush()

    def close(self) -> None:
        """Flush, and give the store back."""
        try:
            self._taken.close()
            self._shown.close()
        finally:
            self.store.close()


def _meaning(store: Store, embedder: Embedder | None) -> Meaning | None:
    if embedder is None:
        return None
    from esper.memory.recall.meaning import Meaning  # numpy is only needed for vectors

    return Meaning(store, embedder)
