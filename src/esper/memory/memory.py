"""The memory as its users see it. Delegates: knows who does what, and does none of it."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from esper.errors import EpisodeError
from esper.memory.completion import Completion, Learning, settle
from esper.memory.identity import Clock, new_id, system_clock
from esper.memory.recall.answers import Recalled
from esper.memory.recall.cache import CacheReport
from esper.memory.recall.search import Asked, Search
from esper.memory.recall.terms import Weights
from esper.memory.recording import Opening, Recording, Taken, write_entries
from esper.memory.records import Durability, Episode, Exposure, Feedback, Item, Lesson, Outcome, Tally, Value
from esper.memory.redaction import Redactor
from esper.memory.stores.opening import open_store
from esper.memory.stores.store import Filter, SearchText, Store
from esper.memory.writing import Writer

_EXPOSURES: int = 64
_EXPOSURE_SECONDS: float = 5.0


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What is seldom changed.

    ``durability``: ``process`` survives ``kill -9``, ``power`` a power loss. With ``max_batch`` above 1 steps are
    queued until there are so many or ``flush_interval`` seconds have passed. ``redact=False`` keeps secrets.
    """

    durability: Durability = "process"
    max_batch: int = 1
    flush_interval: float = 1.0
    redact: bool = True
    learning: Learning = Learning()
    weights: Weights = Weights()


class Memory:
    """Records episodes, learns when they end, and answers the next time. Safe from several threads and processes.

    ``location`` is a file, ``":memory:"``, a URL or a store; by default the project's ``.esper/memory.db``.

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
    ) -> None:
        told = options or Options()
        self.store = _store_at(location, told)
        self.namespace = namespace
        self.clock = clock
        self._redact = Redactor(secrets=told.redact)
        self._writer = _step_writer(self.store, self._redact, told)
        self._shown: Writer[Exposure] = Writer(
            self.store.exposures.add, max_batch=_EXPOSURES, flush_interval=_EXPOSURE_SECONDS
        )
        self.put = self._writer.put
        self._completion = Completion(self.store, self._redact, told.learning)
        self._search = Search(self.store, clock, self._shown.put, told.weights)
        self._close = weakref.finalize(self, _close, self._writer, self._shown, self.store)

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
            self,
            Opening(
                task=task,
                task_type=task_type,
                domain=domain,
                namespace=self.namespace if namespace is None else namespace,
                tags=tuple(tags),
                context=context,
            ),
        )

    def resume(self, id: str) -> Recording:
        """An open episode again, after another process or agent left it.

        Raises:
            EpisodeError: it is not there, or has ended.
        """
        self.flush()
        found = self.get(id, steps=False)
        if found.state != "open":
            raise EpisodeError(f"episode {id} is {found.state}: only an open one can go on")
        opening = Opening(
            task=found.task,
            task_type=found.task_type,
            domain=found.domain,
            namespace=found.namespace,
            tags=found.tags,
            context=found.context,
        )
        return Recording(self, opening, id=id, last=self.store.episodes.last_number(id))

    def get(self, id: str, *, steps: bool = True) -> Episode:
        """One episode. Raises ``EpisodeError`` when it is not there."""
        found = self.get_many([id], steps=steps).get(id)
        if found is None:
            raise EpisodeError(f"there is no episode {id}")
        return found

    def get_many(self, ids: Sequence[str], *, steps: bool = True) -> dict[str, Episode]:
        """The episodes that are there, in the order of ``ids``; what is missing is not among the keys."""
        self._writer.flush()
        return self.store.episodes.get(ids, steps=steps)

    def episodes(
        self, filter: Filter | None = None, *, limit: int = 100, before: str | None = None
    ) -> list[Episode]:
        """Episodes without their steps, newest first; ``before`` (an id) continues a list."""
        self._writer.flush()
        return self.store.episodes.find(self._own(filter), limit=limit, before=before)

    def patterns(self, filter: Filter | None = None, *, limit: int = 100) -> list[Item]:
        """Patterns by trust, then by occurrences; retired ones too unless the filter's state says otherwise."""
        wanted = msgspec.structs.replace(self._own(filter), kinds=("pattern",))
        return self.store.items.find(wanted, limit=limit)

    def note(
        self, text: str, *, tags: Iterable[str] = (), namespace: str | None = None, **context: Value
    ) -> Item:
        """Remember a text with its context; it is recalled like everything else."""
        now = self.clock()
        lesson = self._redact(Lesson(text=text, context=context))
        name = self.namespace if namespace is None else namespace
        item = Item(
            id=new_id(now), kind="note", lesson=lesson, namespace=name, created=now, tally=Tally(touched=now)
        )
        words = " ".join([*map(str, lesson.context.values()), *tags])
        with self.store.transaction():
            self.store.items.add([(item, SearchText(title=lesson.text, context=words))])
            self.store.catalogue.tag(item.id, tags)
            self.store.touch(name)
        return item

    def recall(
        self, query: str, *, k: int = 5, filter: Filter | None = None, task_type: str = "", domain: str = ""
    ) -> Recalled:
        """The ``k`` items that fit a query best; empty when nothing is relevant.

        ``filter`` says what may come at all; ``task_type`` and ``domain`` say what is preferred.
        """
        asked = Asked(query=query, filter=self._own(filter), k=k, task_type=task_type, domain=domain)
        return self._search.recall(asked)

    def feedback(self, recalled: Recalled | str, used: Iterable[str], *, reward: float | None = None) -> None:
        """These items of a recall were used; with a reward in [0, 1] they earn or lose trust at once.

        Raises:
            EpisodeError: the reward lies outside [0, 1].
        """
        if reward is not None and not 0.0 <= reward <= 1.0:
            raise EpisodeError(f"reward is {reward}: give a number from 0 to 1")
        exposure = recalled if isinstance(recalled, str) else recalled.exposure
        self._shown.flush()
        found = self.store.exposures.get(exposure)
        if found is None:
            raise EpisodeError(f"there is no recall {exposure}")
        with self.store.transaction():
            for item in used:
                settle(self.store, Feedback(exposure=exposure, item=item, reward=reward, at=self.clock()))
            self.store.touch(found.namespace)

    def complete(self, id: str, outcome: Outcome) -> Episode:
        """End an open episode and learn from it, in one transaction."""
        self.flush()
        return self._completion.complete(id, outcome, self.clock())

    def abandon(self, id: str) -> Episode:
        """Give an open episode up; nothing is learned from it."""
        self.flush()
        return self._completion.abandon(id, self.clock())

    def expose(self, id: str, query: str, k: int) -> Recalled:
        """Recall inside the open episode ``id``, in its namespace and situation."""
        found = self.get(id, steps=False)
        filter = Filter(namespace=found.namespace)
        asked = Asked(query=query, filter=filter, k=k, task_type=found.task_type, domain=found.domain)
        return self._search.recall(asked, episode=id)

    def use(self, id: str, items: Iterable[str]) -> None:
        """Note what was used in an open episode; its end decides what that was worth."""
        self._shown.flush()
        with self.store.transaction():
            shown = self.store.exposures.of_episode(id)
            for item in items:
                if item not in shown:
                    raise EpisodeError(f"{item} was not recalled in episode {id}")
                self.store.exposures.use([Feedback(exposure=shown[item], item=item, at=self.clock())])

    def cache_report(self) -> CacheReport:
        """How often the query cache had the answer."""
        return self._search.report()

    def flush(self) -> None:
        """Everything queued is stored when this returns."""
        self._writer.flush()
        self._shown.flush()

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


def _store_at(location: str | Path | Store | None, options: Options) -> Store:
    if location is None or isinstance(location, str | Path):
        return open_store(location, power=options.durability == "power")
    return location


def _step_writer(store: Store, redact: Redactor, options: Options) -> Writer[Recording | Taken]:
    return Writer(
        lambda entries: write_entries(store, redact, entries),
        durability=options.durability,
        max_batch=options.max_batch,
        flush_interval=options.flush_interval,
    )


def _close(writer: Writer[Recording | Taken], shown: Writer[Exposure], store: Store) -> None:
    try:
        writer.close()
        shown.close()
    finally:
        store.close()
