"""Whether what was done made a difference: how it ended with it against how it ended without. Knows no store."""

from __future__ import annotations

import math
from typing import Final

import msgspec

from esper.memory.learning.habits import Habits, floor, is_pattern, outcomes
from esper.memory.learning.observation import Observation
from esper.memory.records import PatternKind
from esper.memory.stores.store import Support

BAR: Final = 1.6448536269514722
"""Standard deviations by which the rates differ: the 90 % interval of the difference leaves zero out."""
STRICTER: Final = 0.1
"""The bar rises by this each time the episodes of a kind double beyond 16: more things could differ by chance."""
KEEP: Final = 0.75
"""A pattern that is there stays while it has this share of what one needs to begin."""
USUAL: Final = 0.6
"""The mean chance that the usual way works, where nothing can be compared: two of three, four of six."""
NEVER: Final = 0.2
"""The mean chance of a cure that is none, where nothing else was tried: none of three."""
MOSTLY: Final = 0.75
"""The mean chance that a deed goes wrong which does so by itself: two of two, five of six."""


class Ground(msgspec.Struct, frozen=True, gc=False):
    """What something is held against: all that was seen in its place, itself included, and what is usual there.

    It must be seen ``floor`` times, and its rate lie ``bar`` standard deviations from that of the rest.
    """

    base: Support
    habits: Habits
    floor: float
    bar: float

    @classmethod
    def of(cls, base: Support, habits: Habits) -> Ground:
        """The ground of a place in a kind of task."""
        episodes, _ = outcomes(habits)
        return cls(base, habits, floor(habits), BAR + STRICTER * math.log2(max(episodes, 16.0) / 16.0))


def verdict(one: Observation, support: Support, ground: Ground, *, there: bool) -> PatternKind | None:
    """What sort of pattern this is by now, if any.

    Better than the rest, it is what it was observed as; worse, an anti-pattern, where there is a condition to warn in.
    A cure was seen to cure: it need only do so mostly, and no worse than the rest. Where all ended alike, or nobody did
    otherwise, nothing can be compared: the usual way is a pattern if it works.
    """
    if one.kind == "antipattern":
        return "antipattern" if _breaks(support, ground.base, there=there) else None
    gap = ahead(support, ground.base)
    if gap is None:
        if one.kind == "recovery" and _mean(support) <= NEVER:
            return "antipattern"
        usual = is_pattern(one, support, ground.habits, there=there)
        return one.kind if usual and _mean(support) >= USUAL else None
    if one.kind == "recovery" and gap >= 0 and _mean(support) >= USUAL:
        return "recovery"
    share = KEEP if there else 1.0
    if abs(gap) < ground.bar * share or support.seen < ground.floor * share:
        return None
    return one.kind if gap > 0 else "antipattern" if one.condition and one.kind != "approach" else None


def ahead(one: Support, base: Support) -> float | None:
    """By how many standard deviations ``one`` does better than the rest of ``base``, each rate with a Beta(1, 1) prior.

    ``None`` where there is no rest, or where all of ``base`` ended alike.
    """
    seen = base.seen - one.seen
    if seen <= 0 or not 0.0 < base.won < base.seen:
        return None
    won = min(max(base.won - one.won, 0.0), seen)
    own = (1.0 + one.won) / (2.0 + one.seen)
    rest = (1.0 + won) / (2.0 + seen)
    return (own - rest) / math.sqrt(own * (1.0 - own) / (3.0 + one.seen) + rest * (1.0 - rest) / (3.0 + seen))


def _mean(one: Support) -> float:
    return (1.0 + one.won) / (2.0 + one.seen)


def _breaks(support: Support, base: Support, *, there: bool) -> bool:
    """Whether a deed goes wrong by itself: nearly always, and more than other deeds do."""
    mean = _mean(support)
    gap = ahead(support, base)
    return 1.0 - mean >= MOSTLY * (KEEP if there else 1.0) and (
        gap is None or gap < -BAR * (KEEP if there else 1.0)
    )
