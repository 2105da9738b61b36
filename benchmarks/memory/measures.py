"""Measures of one ranking, and their means with bootstrap intervals. Knows no ranker."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

MEASURES = ("r1", "r5", "r10", "ndcg10", "mrr")
RESAMPLES = 2_000


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """One question's measures. Recall is the share of all that answers it; MRR looks at the first 100."""

    r1: float
    r5: float
    r10: float
    ndcg10: float
    mrr: float


def measure(ranked: Sequence[str], grades: Mapping[str, int]) -> Measured:
    """Measures of one ranking, best first. nDCG: gain is the grade, discount ``log2(place + 1)`` (BEIR's)."""
    gains = [grades.get(document, 0) for document in ranked]
    ideal = sorted(grades.values(), reverse=True)
    first = next((place for place, gain in enumerate(gains[:100], start=1) if gain), None)
    found = [sum(1 for gain in gains[:k] if gain) / len(grades) for k in (1, 5, 10)]
    return Measured(
        r1=found[0],
        r5=found[1],
        r10=found[2],
        ndcg10=_discounted(gains[:10]) / _discounted(ideal[:10]),
        mrr=1 / first if first else 0.0,
    )


def _discounted(gains: Sequence[int]) -> float:
    return sum(gain / math.log2(place + 1) for place, gain in enumerate(gains, start=1))


def mean(measured: Sequence[Measured], name: str) -> float:
    """The mean of one measure."""
    return float(np.mean([msgspec.structs.asdict(one)[name] for one in measured]))


def interval(measured: Sequence[Measured], name: str, *, seed: int = 0) -> tuple[float, float]:
    """The percentile bootstrap's 95 % interval of the mean over questions."""
    values = np.array([msgspec.structs.asdict(one)[name] for one in measured])
    drawn = np.random.default_rng(seed).integers(len(values), size=(RESAMPLES, len(values)))
    low, high = np.quantile(values[drawn].mean(axis=1), [0.025, 0.975])
    return float(low), float(high)
