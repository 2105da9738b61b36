"""How text decides a rank: weights of the fields, fusion with vectors, and when nothing is relevant.

Pure functions over numbers that an index gives; knows neither SQLite nor where vectors come from. The weights were
chosen on conversations 1 to 5 of LoCoMo, that of the title on runs of tau-bench; what each is worth, and what was
tried and lost, stands in ``benchmarks/LOG.md``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Generic, TypeVar

import msgspec

from esper.memory.recall.words import MAX_TERMS

Key = TypeVar("Key")

TOKENIZER: Final = "porter unicode61 remove_diacritics 2"
"""What an FTS5 table is made with."""
DEPTH: Final = 100
"""So many candidates by words, and as many by meaning, are fused."""
SEMANTIC_WEIGHT: Final = 0.6
"""Share of the cosine in a fused score; the rest is BM25's."""
NUM_NEARBY: Final = 2
_SATURATION: Final = 2.2  # FTS5's k1 + 1: what a term can add at most, times its inverse frequency
_MIN_INVERSE_FREQUENCY: Final = 1e-6  # FTS5's own floor


class FieldWeights(msgspec.Struct, frozen=True, kw_only=True):
    """Weights of the indexed fields in BM25.

    Attributes:
        title: what the record is about, such as the task of an episode
        detail: what was done or said
        context: domain, language, tags and the date in words
        nearby: what the records before it in the same thread say
    """

    title: float = 4.0
    detail: float = 1.5
    context: float = 0.75
    nearby: float = 0.4


WEIGHTS: Final = FieldWeights()


class Relevance(msgspec.Struct, frozen=True, kw_only=True):
    """Below these, nothing is relevant. ``coverage``, ``held`` and ``cosine`` are the best candidate's of its kind."""

    coverage_plus_held: float
    coverage_plus_cosine: float

    def holds(self, coverage: float, *, held: float = 0.0, cosine: float | None = None) -> bool:
        """Whether anything found answers the question; without vectors ``cosine`` is None."""
        if cosine is None:
            return coverage + held >= self.coverage_plus_held
        return coverage + cosine >= self.coverage_plus_cosine


RELEVANCE: Final = Relevance(coverage_plus_held=0.46, coverage_plus_cosine=0.63)
"""Keeps 98 % of the answerable questions of conversations 1 to 5 of LoCoMo (``benchmarks.memory.relevance``).

The cosine is that of ``StaticTable``; another model has its own scale.
"""


class Ranked(msgspec.Struct, Generic[Key], frozen=True):
    """A candidate and its total in [0, 1], which is the sum of its two parts."""

    key: Key
    total: float
    lexical: float
    semantic: float


def any_of(terms: Iterable[str]) -> str:
    """An FTS5 expression that matches records with any of the terms, whatever characters they hold; "" for none."""
    return " OR ".join('"' + term.replace('"', '""') + '"' for term in terms)


def nearby(previous: Sequence[str]) -> str:
    """The ``nearby`` field of a record, from the texts of those before it in its thread, oldest first."""
    return " ".join(previous[-NUM_NEARBY:])


def inverse_frequency(frequency: int, num_records: int) -> float:
    """FTS5's inverse document frequency: ``log((N - n + .5) / (n + .5))``, at least 1e-6."""
    return max(math.log((num_records - frequency + 0.5) / (frequency + 0.5)), _MIN_INVERSE_FREQUENCY)


def informative(frequencies: Mapping[str, int], num_records: int, *, limit: int = MAX_TERMS) -> list[str]:
    """The terms that tell records apart: at most ``limit``, rarest first, then as given.

    What stands in more than half of the records weighs nothing in BM25 and costs most; it stays only if there is
    nothing else.
    """
    telling = [term for term, count in frequencies.items() if 2 * count < num_records]
    return sorted(telling or frequencies, key=frequencies.__getitem__)[:limit]


def coverage(best: float, frequencies: Iterable[int], num_records: int) -> float:
    """The best BM25 score as a share of the most that these terms could score, in [0, 1].

    Terms that no record holds count against it: a question about something else covers little.
    """
    most = _SATURATION * sum(inverse_frequency(frequency, num_records) for frequency in frequencies)
    return min(best / most, 1.0) if most > 0 else 0.0


def held_share(num_held: int, num_asked: int) -> float:
    """The share of the asked words that a record holds, as if one more had been asked: one of one is a half."""
    return num_held / (num_asked + 1)


def fuse(
    lexical: Mapping[Key, float], semantic: Mapping[Key, float], *, weight: float = SEMANTIC_WEIGHT
) -> list[Ranked[Key]]:
    """Candidates by ``(1 - weight) * bm25 / best bm25 + weight * cosine / best cosine``, best first.

    A candidate that one side did not find has nothing from it; negative values count as nothing. Ties keep the order of
    ``lexical``, then of ``semantic``. Reciprocal ranks instead of values lost (``benchmarks/LOG.md``).
    """
    words = _shares(lexical, 1.0 - weight)
    meaning = _shares(semantic, weight)
    ranked = [
        Ranked(key, words.get(key, 0.0) + meaning.get(key, 0.0), words.get(key, 0.0), meaning.get(key, 0.0))
        for key in {**lexical, **semantic}
    ]
    return sorted(ranked, key=lambda one: -one.total)


def _shares(values: Mapping[Key, float], weight: float) -> dict[Key, float]:
    best = max(values.values(), default=0.0)
    return {key: weight * max(value, 0.0) / best for key, value in values.items()} if best > 0 else {}
