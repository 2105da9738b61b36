"""Values that stand apart from all others: the noise points of DBSCAN (Ester et al., 1996). Needs no library."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import pairwise
from statistics import median
from typing import Final

import msgspec

from esper.memory.analysis.series import Point, Series

_NORMAL: Final = 0.6745 * 2**0.5
"""Median of the absolute difference of two standard normal values."""


class Anomaly(msgspec.Struct, frozen=True):
    """A point that belongs to no cluster; ``distance`` is to the nearest value of one, ``None`` without clusters."""

    index: int
    point: Point
    distance: float | None


def anomalies(series: Series, *, reach: float = 2.0, neighbours: int = 5) -> list[Anomaly]:
    """The points with fewer than ``neighbours`` values (itself included) in reach, and none of those who have more.

    ``reach`` is in standard deviations of the noise, estimated from the differences of successive values: a change of
    level or a trend does not widen it. A level that held for ``neighbours`` points is no anomaly. In a series with
    fewer points than that, nothing is.
    """
    values = series.values
    if len(values) < neighbours:
        return []
    radius = reach * _noise(values)
    core = _core(values, radius, neighbours)
    return [
        Anomaly(index, point, _nearest(core, point.value))
        for index, point in enumerate(series.points)
        if _within(core, point.value, radius) == 0
    ]


def _noise(values: Sequence[float]) -> float:
    return median(abs(after - before) for before, after in pairwise(values)) / _NORMAL


def _core(values: Sequence[float], radius: float, neighbours: int) -> list[float]:
    ordered = sorted(values)
    return [value for value in ordered if _within(ordered, value, radius) >= neighbours]


def _within(ordered: Sequence[float], value: float, radius: float) -> int:
    return bisect_right(ordered, value + radius) - bisect_left(ordered, value - radius)


def _nearest(ordered: Sequence[float], value: float) -> float | None:
    place = bisect_left(ordered, value)
    return min((abs(value - other) for other in ordered[max(place - 1, 0) : place + 1]), default=None)
