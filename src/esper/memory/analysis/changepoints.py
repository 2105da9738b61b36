"""When a series came to another level, by KernelCPD of ruptures, which is imported by the first call."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import pairwise
from math import log
from statistics import fmean, pvariance

import msgspec

from esper.errors import ConfigurationError
from esper.memory.analysis.series import Series


class Change(msgspec.Struct, frozen=True):
    """From point ``index`` on, at this time in nanoseconds; the means reach to the neighbouring changes."""

    index: int
    at: int
    before: float
    after: float


def changepoints(series: Series, *, min_points: int = 5, caution: float = 2.5) -> list[Change]:
    """The changes of level, oldest first, at least ``min_points`` apart; time grows with the number of points squared.

    Ranks stand for the values, so that a single wild one weighs no more than any other (as in Lung-Yut-Fong et al.,
    "Homogeneity and change-point detection tests for multivariate data using rank statistics", 2015). On them works
    PELT with a linear kernel: a change must explain ``caution`` times the variance of the ranks times the logarithm of
    the number of points.

    Raises:
        AnalysisError: fewer than twice ``min_points`` points.
        ConfigurationError: ``ruptures`` is not installed.
    """
    series.at_least(2 * min_points)
    values = series.values
    ranks = _ranks(values)
    variance = pvariance(ranks)
    if not variance:
        return []
    ends = [0, *_ends(ranks, min_points, caution * variance * log(len(ranks)))]
    means = [fmean(values[start:end]) for start, end in pairwise(ends)]
    return [
        Change(index, series.points[index].at, before, after)
        for index, (before, after) in zip(ends[1:-1], pairwise(means), strict=True)
    ]


def _ranks(values: Sequence[float]) -> list[float]:
    """From 0.5; equal values share the mean of theirs."""
    ordered = sorted(values)
    return [(bisect_left(ordered, value) + bisect_right(ordered, value)) / 2 for value in values]


def _ends(ranks: Sequence[float], min_points: int, penalty: float) -> list[int]:
    try:
        import ruptures
    except ImportError as error:
        raise ConfigurationError("changes need ruptures: pip install 'esper-grow[analysis]'") from error
    import numpy as np

    search = ruptures.KernelCPD(kernel="linear", min_size=min_points)
    return [int(end) for end in search.fit(np.array(ranks)).predict(pen=penalty)]
