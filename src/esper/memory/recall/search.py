"""From a question to answers: words, meaning, rank, cache, exposure. Does not know what an episode is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

import msgspec

from esper.errors import EmbeddingError
from esper.memory.identity import Clock, new_id
from esper.memory.recall.answers import Answer, Recalled
from esper.memory.recall.cache import CacheReport, QueryCache
from esper.memory.recall.ranking import DEPTH, RELEVANCE, Relevance, coverage, fuse, held_share
from esper.memory.recall.terms import Question, Weights, ranked, without_repeats
from esper.memory.recall.vocabulary import Vocabulary
from esper.memory.recall.words import terms
from esper.memory.records import Exposure, Item
from esper.memory.stores.store import Filter, Hit, Store

if TYPE_CHECKING:
    from esper.memory.recall.embeddings import Vectors
    from esper.memory.recall.meaning import Meaning

CANDIDATES: Final = 50
MOST_CANDIDATES: Final = 3_200
"""Where equal items crowd the candidates out, at most so many are looked at."""
MIN_RECORDS: Final = 100
"""In a smaller memory every match counts as relevant: how rare a word is means little yet."""
COVERED: Final = 12
"""Of a longer question an answer has to cover so many words, the rarest ones that stand in any record."""
_LONG: Final = 256


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """A query: ``filter`` says what may be answered at all, ``task_type`` and ``domain`` what is preferred."""

    query: str
    filter: Filter
    k: int = 5
    task_type: str = ""
    domain: str = ""


class Found(msgspec.Struct, frozen=True):
    """Answers, and what has to be said about how they were found."""

    answers: tuple[Answer, ...]
    notice: str = ""


class Scoring(msgspec.Struct, frozen=True, kw_only=True):
    """How candidates are weighed, and below what nothing is relevant."""

    weights: Weights = Weights()
    relevance: Relevance = RELEVANCE


class Search:
    """Answers questions, and writes down what it showed. Without ``meaning`` words alone decide."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        expose: Callable[[Exposure], object],
        *,
        scoring: Scoring,
        meaning: Meaning | None = None,
    ) -> None:
        self._store = store
        self._clock = clock
        self._expose = expose
        self._scoring = scoring
        self.meaning = meaning
        self._vocabulary = Vocabulary(store)
        self._cache: QueryCache[Found] = QueryCache(clock)

    def recall(self, asked: Asked, *, episode: str | None = None) -> Recalled:
        """The best items for a query; what is retired is left out unless the filter asks for it."""
        now = self._clock()
        namespace = asked.filter.namespace
        stamp = self._store.stamp(namespace)
        found = self._cache.get(asked, stamp)
        cached = found is not None
        if found is None:
            found = self._find(asked, now)
            if not found.notice:
                self._cache.put(asked, stamp, found)
        exposure = new_id(now)
        self._expose(
            Exposure(
                id=exposure,
                query=asked.query,
                items=tuple([answer.item.id for answer in found.answers]),
                namespace=namespace or "",
                episode=episode,
                at=now,
            )
        )
        return Recalled(asked.query, exposure, found.answers, cached, found.notice)

    def _find(self, asked: Asked, now: int) -> Found:
        filter = asked.filter if asked.filter.state else msgspec.structs.replace(asked.filter, state="active")
        asked = msgspec.structs.replace(asked, filter=filter)
        vector, notice = self._embedded(asked.query)
        words = self._vocabulary.telling(terms(asked.query, limit=_LONG))
        limit = max(DEPTH if vector is not None else CANDIDATES, asked.k)
        while True:
            hits = self._store.items.search(words, filter, limit)
            answers = self._answers(asked, now, hits, self._cosines(asked, hits, vector))
            if len(answers) >= asked.k or len(hits) < limit or limit >= MOST_CANDIDATES:
                return Found(answers[: asked.k], notice)
            limit *= 4

    def _embedded(self, query: str) -> tuple[Vectors | None, str]:
        if self.meaning is None:
            return None, ""
        try:
            vector = self.meaning.ask(query)
        except EmbeddingError as error:
            return None, f"found by words alone: {error}"
        missing = "" if self.meaning.complete else "some items have no vector yet: call embed_again()"
        return vector, missing

    def _cosines(self, asked: Asked, hits: Sequence[Hit], vector: Vectors | None) -> dict[str, float] | None:
        if self.meaning is None or vector is None:
            return None
        space = asked.filter.namespace
        near = self.meaning.nearest(vector, space, DEPTH)
        return near | self.meaning.cosines(vector, space, [hit.item.id for hit in hits])

    def _answers(
        self, asked: Asked, now: int, hits: Sequence[Hit], cosines: Mapping[str, float] | None
    ) -> tuple[Answer, ...]:
        question = Question(text=asked.query, now=now, task_type=asked.task_type, domain=asked.domain)
        lexical = {hit.item.id: hit.relevance for hit in hits}
        best = max(lexical.values(), default=0.0)
        if not self._relevant(asked.query, hits, cosines):
            return ()
        items = {hit.item.id: hit.item for hit in hits}
        if cosines is None:
            shares = {id: score / best if best > 0 else 0.0 for id, score in lexical.items()}
        else:
            shares = self._fused(asked, lexical, cosines, items)
        told = [(items[id], share) for id, share in shares.items()]
        return without_repeats(ranked(told, question, self._scoring.weights))

    def _fused(
        self,
        asked: Asked,
        lexical: Mapping[str, float],
        cosines: Mapping[str, float],
        items: dict[str, Item],
    ) -> dict[str, float]:
        """The best of both kinds with their text terms in [0, 1]; ``items`` gains those that words did not find."""
        totals = {one.key: one.total for one in fuse(lexical, cosines)}
        ids = list(totals)
        for chosen in (ids[: max(CANDIDATES, 2 * asked.k)], ids):
            items |= self._others(asked.filter, [id for id in chosen if id not in items])
            fitting = {id: totals[id] for id in chosen if id in items}
            if len(fitting) >= asked.k:
                break
        return fitting

    def _others(self, filter: Filter, ids: Sequence[str]) -> dict[str, Item]:
        return self._store.items.get(ids, filter=filter) if ids else {}

    def _relevant(self, query: str, hits: Sequence[Hit], cosines: Mapping[str, float] | None) -> bool:
        size = self._store.items.size()
        if size < MIN_RECORDS:
            return True
        frequencies = self._vocabulary.frequencies(terms(query, limit=_LONG))
        rarest = sorted(frequencies, key=lambda word: (not frequencies[word], frequencies[word]))[:COVERED]
        best = hits[0].relevance if hits else 0.0
        covered = coverage(best, [frequencies[word] for word in rarest], size)
        if cosines is not None:
            return self._scoring.relevance.holds(covered, cosine=max(cosines.values(), default=0.0))
        held = self._store.items.num_held(hits[0].item.id, rarest) if hits else 0
        return self._scoring.relevance.holds(covered, held=held_share(held, len(rarest)))

    def forget(self) -> None:
        """Keep nothing in memory of what may have been erased."""
        if self.meaning is not None:
            self.meaning.reset()

    def report(self) -> CacheReport:
        """Hits and misses of the query cache."""
        return self._cache.report()
