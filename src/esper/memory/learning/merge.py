"""How an item's tally moves when it is seen or used. Knows no store."""

from __future__ import annotations

from typing import Final

import msgspec

from esper.memory.learning.trust import Trust, trust_of
from esper.memory.records import ItemState, Tally

DAY: Final = 86_400 * 10**9
HALF_LIFE: Final = 90
"""Days after which evidence counts half."""
SEEN: Final = 1.0
"""Pseudo-count of one episode in which a pattern was seen."""
USED: Final = 2.0
"""Pseudo-count of one recall that was used: somebody relied on it, which says more."""
MIN_TO_RETIRE: Final = 3.0
"""Nothing retires on less evidence."""


def seen(tally: Tally, reward: float, now: int) -> Tally:
    """The tally after one more episode of this reward."""
    return rewarded(tally, reward, now, weight=SEEN, occurrences=tally.occurrences + 1)


def used(tally: Tally, reward: float, now: int) -> Tally:
    """The tally after the item was used and this reward came of it."""
    after = rewarded(tally, reward, now, weight=USED, occurrences=tally.occurrences)
    return msgspec.structs.replace(after, used=tally.used + 1, last_used=now)


def rewarded(tally: Tally, reward: float, now: int, *, weight: float, occurrences: int) -> Tally:
    """Counts decayed to ``now``, plus the new evidence; retired when it harms, back when it helps again."""
    then, successes, failures = decayed(tally, now)
    successes += weight * reward
    failures += weight * (1.0 - reward)
    return Tally(
        successes,
        failures,
        occurrences,
        tally.shown,
        tally.used,
        then,
        tally.last_used,
        _state(tally.state, successes, failures),
    )


def begun(successes: float, failures: float, occurrences: int, now: int) -> Tally:
    """The tally of a pattern that begins with all that was seen of it."""
    return Tally(successes, failures, occurrences, touched=now, state=_state("active", successes, failures))


def decayed(tally: Tally, now: int) -> tuple[int, float, float]:
    """When the counts were last worth this, and what they are worth; they lose by whole days."""
    days = (now - tally.touched) // DAY
    if days <= 0:
        return tally.touched, tally.successes, tally.failures
    left = 0.5 ** (days / HALF_LIFE)
    return tally.touched + days * DAY, tally.successes * left, tally.failures * left


def trust(tally: Tally, now: int) -> Trust:
    """How far an item is trusted at a time."""
    _, successes, failures = decayed(tally, now)
    return trust_of(successes, failures)


def _state(present: ItemState, successes: float, failures: float) -> ItemState:
    posterior = trust_of(successes, failures)
    if present == "retired":
        return "active" if posterior.returns else "retired"
    harmful = posterior.retires and successes + failures >= MIN_TO_RETIRE
    return "retired" if harmful else "active"
