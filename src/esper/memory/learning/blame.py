"""Which steps answer for a bad end: those that made a difference to it, not those that found it. Knows one episode."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from esper.memory.learning.attempts import WINDOW
from esper.memory.learning.wording import deed, error_signature
from esper.memory.records import Step


def culprits(steps: Sequence[Step]) -> dict[int, str]:
    """The number of each step that failed, with the error that stayed: steps that cured nothing, errors nobody cured.

    An error that was cured is nobody's fault. A check that fails again blames what was done in between.
    """
    found: dict[int, str] = {}
    for place, step in enumerate(steps):
        if step.error is None:
            continue
        again = _again(steps, place)
        if again is None and not _repeated(steps, place):
            found[step.number] = step.error
        elif again is not None and steps[again].error is not None:
            between = [one for one in steps[place + 1 : again] if one.error is None]
            found |= {one.number: step.error for one in between or [steps[again]]}
    return found


def _again(steps: Sequence[Step], place: int) -> int | None:
    """Where the tool of the step at ``place`` ran next, within the window."""
    failed = steps[place]
    for later in range(place + 1, min(place + 1 + WINDOW, len(steps))):
        one = steps[later]
        if one.tool == failed.tool and (one.action in (failed.action, "") or one.error is None):
            return later
    return None


def _repeated(steps: Sequence[Step], place: int) -> bool:
    """Whether the same step failed the same way before."""
    last = steps[place]
    told = error_signature(last.error or "")
    return any(
        one.error is not None and deed(one) == deed(last) and error_signature(one.error) == told
        for one in steps[:place]
    )


def blamed(steps: Sequence[Step]) -> Iterator[tuple[Step, str, bool]]:
    """Each culprit with the error that stayed, and whether the error is its own."""
    found = culprits(steps)
    for step in steps:
        if step.number in found:
            yield step, found[step.number], step.error is not None
