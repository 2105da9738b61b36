"""The rankers that are compared: word overlap, plain BM25, ours by words, ours by words and meaning."""

from __future__ import annotations

import datetime
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from typing import Protocol

import apsw

from benchmarks.memory.beir import Document
from esper.memory import Memory, Options
from esper.memory.recall.embeddings import Embedder, Vectors, record_vectors
from esper.memory.recall.ranking import (
    DEPTH,
    NUM_NEARBY,
    RELEVANCE,
    SEMANTIC_WEIGHT,
    TOKENIZER,
    WEIGHTS,
    FieldWeights,
    Relevance,
    any_of,
    coverage,
    fuse,
    held_share,
    nearby,
)
from esper.memory.recall.search import Scoring
from esper.memory.recall.terms import Weights
from esper.memory.recall.vectors import VectorIndex
from esper.memory.recall.words import FUNCTION_WORDS, date_words, terms, tokens

TEXT_ALONE = Weights(trust=0.0, context=0.0, score=0.0)
FIELDS = ("title", "detail", "context", "nearby")


class Ranker(Protocol):
    """Ranks the documents that it was made with."""

    def rank(self, question: str) -> list[str]:
        """Ids, best first, at most about a hundred."""
        ...


class WordOverlap:
    """Shared words over all words of both (Jaccard): what a memory without an index often does."""

    def __init__(self, documents: Sequence[Document]) -> None:
        self._words = {document.id: set(tokens(document.whole)) for document in documents}

    def rank(self, question: str) -> list[str]:
        asked = set(tokens(question))
        shares = {id: len(asked & words) / (len(asked | words) or 1) for id, words in self._words.items()}
        return sorted((id for id in shares if shares[id]), key=lambda id: -shares[id])[:DEPTH]


class PlainBM25:
    """FTS5's BM25 over title and text as one field, stemmed, with all defaults; function words are not asked for."""

    def __init__(self, documents: Sequence[Document]) -> None:
        self._index = _Index(("whole",), [(one.whole,) for one in documents])
        self._ids = [one.id for one in documents]

    def rank(self, question: str) -> list[str]:
        words = tokens(question)
        asked = [word for word in words if word not in FUNCTION_WORDS] or words
        return [self._ids[row] for row in self._index.scores(dict.fromkeys(asked), (1.0,))]


class Lexical:
    """Ours without vectors: fields with weights, two records of context, dates, no courtesies."""

    def __init__(
        self,
        documents: Sequence[Document],
        *,
        weights: FieldWeights = WEIGHTS,
        without: str = "",
        words: Callable[[str], Sequence[str]] = terms,
    ) -> None:
        """``without`` names a field that is left empty, ``words`` makes terms of a question: both for ablations."""
        rows = [
            (one.title or "", one.text, _date(one), around)
            for one, around in zip(documents, _surroundings(documents), strict=True)
        ]
        kept = [
            tuple("" if name == without else text for name, text in zip(FIELDS, row, strict=True))
            for row in rows
        ]
        self._index = _Index(FIELDS, kept)
        self._words = words
        self._weights = (weights.title, weights.detail, weights.context, weights.nearby)
        self._ids = [one.id for one in documents]

    def scores(self, question: str) -> dict[str, float]:
        """BM25 of the best candidates, best first."""
        found = self._index.scores(self._words(question), self._weights)
        return {self._ids[row]: score for row, score in found.items()}

    def covered(self, question: str) -> float:
        """How much of the question its best document covers (``ranking.coverage``)."""
        asked = self._words(question)
        best = max(self._index.scores(asked, self._weights).values(), default=0.0)
        return coverage(best, self._index.frequencies(asked), len(self._ids))

    def held(self, question: str) -> float:
        """The share of the question's words that its best document holds (``ranking.held_share``)."""
        asked = self._words(question)
        best = next(iter(self._index.scores(asked, self._weights)), None)
        return held_share(0 if best is None else self._index.num_held(best, asked), len(asked))

    def rank(self, question: str) -> list[str]:
        return list(self.scores(question))


class Hybrid:
    """Ours with vectors: ``Lexical`` fused with cosines."""

    def __init__(
        self,
        documents: Sequence[Document],
        embedder: Embedder,
        *,
        lexical: Lexical | None = None,
        weight: float = SEMANTIC_WEIGHT,
        vectors: Callable[[Embedder, Sequence[tuple[str, str]]], Vectors] = record_vectors,
    ) -> None:
        """``vectors`` makes those of the records, for ablations."""
        self._lexical = lexical or Lexical(documents)
        self._embedder = embedder
        self._weight = weight
        self.index = VectorIndex(embedder.dimension)
        records = [(one.title or "", one.text) for one in documents]
        self.index.put([one.id for one in documents], vectors(embedder, records))

    def nearest(self, question: str) -> float:
        """The largest cosine."""
        return max(self.index.nearest(self._embedder.embed([question])[0], 1).values())

    def candidates(self, question: str) -> tuple[dict[str, float], dict[str, float]]:
        """BM25 and cosines of the candidates of both kinds, best first."""
        words = self._lexical.scores(question)
        asked = self._embedder.embed([question])[0]
        return words, self.index.nearest(asked, DEPTH) | self.index.cosines(asked, words)

    def rank(self, question: str) -> list[str]:
        return [one.key for one in fuse(*self.candidates(question), weight=self._weight)]


class Remembered:
    """Ours as its users have it: every document is a note of a ``Memory``; answers that repeat others stand with them.

    With ``all_relevant`` the memory never says that nothing is relevant.
    """

    def __init__(
        self,
        documents: Sequence[Document],
        *,
        embedder: Embedder | None = None,
        weights: Weights = TEXT_ALONE,
        all_relevant: bool = True,
    ) -> None:
        relevance = (
            Relevance(coverage_plus_held=0.0, coverage_plus_cosine=-1.0) if all_relevant else RELEVANCE
        )
        options = Options(redact=False, scoring=Scoring(weights=weights, relevance=relevance))
        self._now = 0
        self._memory = Memory(":memory:", options=options, clock=lambda: self._now, embedder=embedder)
        self._document: dict[str, str] = {}
        for document in documents:
            day = document.metadata.day or datetime.date(1970, 1, 1)
            self._now = (
                int(datetime.datetime(day.year, day.month, day.day, tzinfo=datetime.UTC).timestamp()) * 10**9
            )
            note = self._memory.note(
                document.text, title=document.title or "", thread=str(document.metadata.thread)
            )
            self._document[note.id] = document.id
        if embedder is not None:
            self._memory.embed_again()

    def rank(self, question: str) -> list[str]:
        found = self._memory.recall(question, k=DEPTH)
        return [self._document[id] for answer in found for id in (answer.id, *answer.alike)]


class _Index:
    """An FTS5 table in memory."""

    def __init__(self, columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
        self._connection = apsw.Connection(":memory:")
        names, marks = ", ".join(columns), ", ".join("?" * len(columns))
        self._connection.execute(
            f"CREATE VIRTUAL TABLE texts USING fts5({names}, content='', tokenize='{TOKENIZER}')"
        )
        with self._connection:
            self._connection.executemany(
                f"INSERT INTO texts (rowid, {names}) VALUES (?, {marks})",
                [(row, *texts) for row, texts in enumerate(rows)],
            )

    def scores(self, asked: Sequence[str] | dict[str, None], weights: tuple[float, ...]) -> dict[int, float]:
        """BM25 by row, best first."""
        if not asked:
            return {}
        sql = (
            f"SELECT rowid, -bm25(texts, {', '.join(map(str, weights))}) AS score FROM texts "
            f"WHERE texts MATCH ? ORDER BY score DESC, rowid LIMIT {DEPTH}"
        )
        return dict(self._connection.execute(sql, (any_of(asked),)))

    def num_held(self, row: int, asked: Sequence[str]) -> int:
        """How many of the terms a row holds."""
        sql = "SELECT 1 FROM texts WHERE texts MATCH ? AND rowid = ?"
        return sum(bool(self._connection.execute(sql, (any_of([term]), row)).fetchall()) for term in asked)

    def frequencies(self, asked: Sequence[str]) -> list[int]:
        """How many rows hold each term."""
        sql = "SELECT count(*) FROM texts WHERE texts MATCH ?"
        return [int(count) for term in asked for (count,) in self._connection.execute(sql, (any_of([term]),))]


def _surroundings(documents: Sequence[Document]) -> list[str]:
    before: dict[str | int, deque[str]] = defaultdict(lambda: deque(maxlen=NUM_NEARBY))
    found = []
    for document in documents:
        thread = document.metadata.thread
        found.append(nearby(list(before[thread])) if thread != "" else "")
        before[thread].append(document.whole)
    return found


def _date(document: Document) -> str:
    day = document.metadata.day
    return date_words(day) if day else ""
