"""From a question to answers: words, candidates, rank, cache, exposure. Does not know what an episode is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from esper.memory.identity import Clock, new_id
from esper.memory.recall.answers import Answer, Recalled
from esper.memory.recall.cache import CacheReport, QueryCache
from esper.memory.recall.terms import Question, Weights, ranked
from esper.memory.recall.vocabulary import Vocabulary
from esper.memory.recall.words import terms
from esper.memory.records import Exposure
from esper.memory.stores.store import Filter, Store

CANDIDATES: Final = 50


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """A query: ``filter`` says what may be answered at all, ``task_type`` and ``domain`` what is preferred."""

    query: str
    filter: Filter
    k: int = 5
    task_type: str = ""
    domain: str = ""


class Search:
    """Answers questions, and writes down what it showed."""

    def __init__(
        self, store: Store, clock: Clock, expose: Callable[[Exposure], object], weights: Weights
    ) -> None:
        self._store = store
        self._clock = clock
        self._expose = expose
        self._weights = weights
        self._vocabulary = Vocabulary(store)
        self._cache: QueryCache[tuple[Answer, ...]] = QueryCache(clock)

    def recall(self, asked: Asked, *, episode: str | None = None) -> Recalled:
        """The best items for a query; what is retired is left out unless the filter asks for it."""
        now = self._clock()
        namespace = asked.filter.namespace
        stamp = self._store.stamp(namespace)
        answers = self._cache.get(asked, stamp)
        cached = answers is not None
        if answers is None:
            answers = self._answers(asked, now)
            self._cache.put(asked, stamp, answers)
        exposure = new_id(now)
        self._expose(
            Exposure(
                id=exposure,
                query=asked.query,
                items=tuple([answer.item.id for answer in answers]),
                namespace=namespace or "",
                episode=episode,
                at=now,
            )
        )
        return Recalled(asked.query, exposure, answers, cached)

    def _answers(self, asked: Asked, now: int) -> tuple[Answer, ...]:
        filter = asked.filter if asked.filter.state else msgspec.structs.replace(asked.filter, state="active")
        hits = self._store.items.search(
            self._vocabulary.telling(terms(asked.query)), filter, max(CANDIDATES, asked.k)
        )
        question = Question(text=asked.query, now=now, task_type=asked.task_type, domain=asked.domain)
        return ranked(hits, question, self._weights)[: asked.k]

    def report(self) -> CacheReport:
        """Hits and misses of the query cache."""
        return self._cache.report()
