"""What was done about an error, and whether that cured it. Knows one episode."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from esper.memory.learning.wording import deed, in_order
from esper.memory.records import Step

WINDOW: Final = 8
"""A cure is looked for within so many steps after the error."""
_RETRY: Final = ("try again",)


def attempt(steps: Sequence[Step], place: int) -> tuple[tuple[str, ...], bool] | None:
    """What was done about the error at ``place``, and whether its tool then ran; ``None`` if it was not run again."""
    failed = steps[place]
    tried: list[str] = []
    for step in steps[place + 1 : place + 1 + WINDOW]:
        if step.tool == failed.tool and step.action in (failed.action, ""):
            return in_order(tried) or _RETRY, step.error is None
        if step.tool == failed.tool and step.error is None:
            return (*in_order(tried), deed(step)), True
        if step.error is None:
            tried.append(deed(step))
    return None
