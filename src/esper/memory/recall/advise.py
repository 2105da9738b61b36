"""What an action is likely to lead to in a situation, from situations like it. Pure functions over experiences."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from esper.memory.learning.trust import Trust, posterior
from esper.memory.records import Value
from esper.memory.stores.store import Experience

BACK_OFF: Final = 2.0
"""How many pseudo-counts the more general situation is worth to the more exact one."""
LEAST: Final = 0.5
"""Pseudo-counts of successes and of failures are never fewer: with less the interval would be nobody's (Jeffreys)."""
EXPLORE: Final = 0.5
"""Who follows the first recommendation must meet what could be better; more of it costs too much at the beginning."""
NUM_BINS: Final = 4
MAX_EVIDENCE: Final = 10
_Z: Final = 1.6448536269514722  # the interval holds 90 %


class Recommendation(msgspec.Struct, frozen=True):
    """One action: the chance that it works, or the mean of its numeric outcome, with a 90 % interval.

    ``num_matched`` of the context's features are equal in the ``num_exact`` most similar of ``num_episodes``.
    """

    action: str
    mean: float
    lower: float
    upper: float
    num_episodes: int = 0
    num_exact: int = 0
    num_matched: int = 0
    evidence: tuple[str, ...] = ()

    @property
    def hopeful(self) -> float:
        """What the order uses: half way from the mean to the upper end, so that the little known is tried."""
        return self.mean + EXPLORE * (self.upper - self.mean)


class Advice(msgspec.Struct, frozen=True):
    """Recommendations, best first. ``exposure`` is what feedback refers to."""

    exposure: str
    recommendations: tuple[Recommendation, ...]

    @property
    def best(self) -> Recommendation:
        """The first one."""
        return self.recommendations[0]


class _Nested(msgspec.Struct, frozen=True):
    """The experiences in which at least ``num_matched`` features are equal."""

    num_matched: int
    experiences: tuple[Experience, ...]


def advise(
    context: Mapping[str, Value], experiences: Mapping[str, Sequence[Experience]], *, numeric: bool = False
) -> tuple[Recommendation, ...]:
    """Actions, best first, ties by name. Categories are equal or not; numbers are equal within a quartile bin.

    The posterior starts general and becomes exact: each level of more equal features takes the mean of the level before
    as a prior worth ``BACK_OFF`` counts. With ``numeric`` the experiences' values count, else their rewards.
    """
    edges = {name: _edges(name, experiences) for name, value in context.items() if _is_number(value)}
    told = [
        _recommend(action, _levels(context, seen, edges), numeric)
        for action, seen in ((action, _usable(seen, numeric)) for action, seen in experiences.items())
    ]
    return tuple(sorted(told, key=lambda one: (-one.hopeful, one.action)))


def _usable(seen: Sequence[Experience], numeric: bool) -> list[Experience]:
    return [one for one in seen if one.value is not None] if numeric else list(seen)


def _levels(
    context: Mapping[str, Value], seen: Sequence[Experience], edges: Mapping[str, list[float]]
) -> list[_Nested]:
    matched = [(_matched(context, one.situation, edges), one) for one in seen]
    levels = sorted({0, *(count for count, _ in matched)}) if matched else []
    return [_Nested(level, tuple(one for count, one in matched if count >= level)) for level in levels]


def _matched(
    context: Mapping[str, Value], situation: Mapping[str, Value], edges: Mapping[str, list[float]]
) -> int:
    return sum(
        1 for name in context if name in situation and _same(context[name], situation[name], edges.get(name))
    )


def _same(asked: Value, seen: Value, edges: list[float] | None) -> bool:
    if edges is None or not _is_number(seen):
        return asked == seen
    return bisect_right(edges, float(asked)) == bisect_right(edges, float(seen))


def _is_number(value: Value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _edges(name: str, experiences: Mapping[str, Sequence[Experience]]) -> list[float]:
    """The inner quartiles of a number over all experiences."""
    found = sorted(
        float(one.situation[name])
        for seen in experiences.values()
        for one in seen
        if name in one.situation and _is_number(one.situation[name])
    )
    return sorted({found[len(found) * part // NUM_BINS] for part in range(1, NUM_BINS)}) if found else []


def _recommend(action: str, levels: Sequence[_Nested], numeric: bool) -> Recommendation:
    belief = _mean_of(levels) if numeric else _chance_of(levels)
    exact = levels[-1] if levels else _Nested(0, ())
    return Recommendation(
        action,
        belief.mean,
        belief.lower,
        belief.upper,
        num_episodes=len({one.episode for one in levels[0].experiences}) if levels else 0,
        num_exact=len(exact.experiences),
        num_matched=exact.num_matched,
        evidence=tuple(dict.fromkeys(one.episode for one in exact.experiences))[:MAX_EVIDENCE],
    )


def _chance_of(levels: Sequence[_Nested]) -> Trust:
    a = b = 1.0
    for level in levels:
        mean = a / (a + b)
        won = sum(one.reward for one in level.experiences)
        a = BACK_OFF * mean + won
        b = BACK_OFF * (1.0 - mean) + len(level.experiences) - won
    return posterior(max(a, LEAST), max(b, LEAST))


def _mean_of(levels: Sequence[_Nested]) -> Trust:
    """Mean shrunk towards the general one; the interval is normal with the general spread.

    With fewer than two values nothing is known of the spread, and the interval is infinite.
    """
    if not levels:
        return Trust(0.0, -math.inf, math.inf)
    values = [_value(one) for one in levels[0].experiences]
    mean = sum(values) / len(values)
    spread = (
        math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1))
        if len(values) > 1
        else math.inf
    )
    weight = float(len(values))
    for level in levels[1:]:
        count = len(level.experiences)
        mean = (BACK_OFF * mean + sum(_value(one) for one in level.experiences)) / (BACK_OFF + count)
        weight = min(BACK_OFF, weight) + count
    half = _Z * spread / math.sqrt(weight)
    return Trust(mean, mean - half, mean + half)


def _value(one: Experience) -> float:
    assert one.value is not None
    return one.value
