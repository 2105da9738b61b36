"""What each step was worth: the end's reward handed back to the steps. Knows nothing of other episodes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from esper.memory.learning.blame import culprits
from esper.memory.records import Step

DISCOUNT: Final = 0.9
_BLAME: Final = 0.5
"""How directly an ordinary step is answerable for the end."""


def credit(steps: Sequence[Step], reward: float) -> tuple[float, ...]:
    """The value of each step in [-1, 1]: ``V_T = R``, ``V_t = a_t R + (1 - a_t) g V_(t+1)``, with R = 2 reward - 1.

    A step with an error answers not at all for a good end (a = 0); for a bad one those answer fully (a = 1) that failed
    or cured nothing, and others as far as any step does.
    """
    end = 2.0 * reward - 1.0
    answers = {} if end > 0 else dict.fromkeys(culprits(steps), 1.0)
    erred = 0.0 if end > 0 else _BLAME
    values: list[float] = []
    value = end
    for place, step in enumerate(reversed(steps)):
        share = answers.get(step.number, _BLAME if step.error is None else erred)
        if place:
            value = share * end + (1.0 - share) * DISCOUNT * value
        values.append(value)
    return tuple(reversed(values))
