"""How good an episode was, in parts that add up. Knows only its outcome, its steps and what similar tasks cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from esper.memory.records import Outcome, Score, Step
from esper.memory.stores.store import Effort

OUTCOME: Final = 0.8
EFFICIENCY: Final = 0.1
RECOVERY: Final = 0.04
VERIFICATION: Final = 0.06
MIN_SIMILAR: Final = 5
"""Efficiency is neutral before so many similar tasks succeeded."""
_NEUTRAL: Final = 0.5


def score(outcome: Outcome, steps: Sequence[Step], effort: Effort, similar: Sequence[Effort]) -> Score:
    """Parts with total in [0, 1]; all but verification scale with the reward, so that fast wrong work gains nothing.

    Right work (reward 1) never scores below work with a reward of at most 0.75, however slow it was.
    """
    reward = outcome.reward
    checked = outcome.verified if outcome.verified is not None else _NEUTRAL * reward
    return Score(
        outcome=OUTCOME * reward,
        efficiency=EFFICIENCY * reward * efficiency(effort, similar),
        recovery=RECOVERY * reward * recovered_share(steps),
        verification=VERIFICATION * min(checked, reward),
    )


def efficiency(effort: Effort, similar: Sequence[Effort]) -> float:
    """The share of similar tasks that cost more, ties half: the mean of its rank by steps, by time and by tokens."""
    if len(similar) < MIN_SIMILAR:
        return _NEUTRAL
    ranks = (
        _share_above(effort.num_steps, [other.num_steps for other in similar]),
        _share_above(effort.seconds, [other.seconds for other in similar]),
        _share_above(effort.tokens, [other.tokens for other in similar]),
    )
    return sum(ranks) / len(ranks)


def recovered_share(steps: Sequence[Step]) -> float:
    """The share of tools with an error that later ran without one; 1 where nothing went wrong."""
    open_errors: set[str] = set()
    failed: set[str] = set()
    for step in steps:
        if step.error is None:
            open_errors.discard(step.tool)
        else:
            open_errors.add(step.tool)
            failed.add(step.tool)
    return 1.0 - len(open_errors) / len(failed) if failed else 1.0


def _share_above(value: float, others: Sequence[float]) -> float:
    above = len([other for other in others if other > value])
    return (above + 0.5 * others.count(value)) / len(others)
