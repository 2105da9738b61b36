"""How an item's counts move when it is seen or used. Knows no store."""

from __future__ import annotations

from typing import Final

import msgspec

from esper.memory.learning.trust import decay, trust_of
from esper.memory.records import Item, ItemState

SEEN: Final = 1.0
"""Pseudo-count of one episode in which a pattern was seen."""
USED: Final = 2.0
"""Pseudo-count of one recall that was used: somebody relied on it, which says more."""
MIN_TO_RETIRE: Final = 3.0
"""Nothing retires on less evidence."""


def seen(item: Item, reward: float, now: int) -> Item:
    """The item after one more episode of this reward."""
    return rewarded(item, reward, now, weight=SEEN, occurrences=item.occurrences + 1)


def used(item: Item, reward: float, now: int) -> Item:
    """The item after it was used and this reward came of it."""
    after = rewarded(item, reward, now, weight=USED, occurrences=item.occurrences)
    return msgspec.structs.replace(after, used=item.used + 1, last_used=now)


def rewarded(item: Item, reward: float, now: int, *, weight: float, occurrences: int) -> Item:
    """Counts decayed to ``now``, plus the new evidence; retired when it harms, back when it helps again."""
    age = now - item.touched
    successes = decay(item.successes, age) + weight * reward
    failures = decay(item.failures, age) + weight * (1.0 - reward)
    return msgspec.structs.replace(
        item,
        successes=successes,
        failures=failures,
        occurrences=occurrences,
        touched=max(now, item.touched),
        state=_state(item.state, successes, failures),
    )


def _state(present: ItemState, successes: float, failures: float) -> ItemState:
    trust = trust_of(successes, failures)
    if present == "retired":
        return "active" if trust.returns else "retired"
    harmful = trust.retires and successes + failures >= MIN_TO_RETIRE
    return "retired" if harmful else "active"
