"""What worked, what failed and what to do next time, in words. Knows one episode; needs no language model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from esper.memory.learning.attempts import attempt
from esper.memory.learning.blame import blamed
from esper.memory.learning.wording import deed, in_order
from esper.memory.records import Episode, Outcome, Reflection, Step

Reflect = Callable[[Episode, Outcome], Reflection]
"""May replace :func:`reflect`; it is given the ended episode with its steps and credit."""

LINES: Final = 5
AGAIN: Final = "next time at once: "
AVOID: Final = "do not repeat "
_LENGTH: Final = 200


def reflect(episode: Episode, outcome: Outcome) -> Reflection:
    """At most five lines each; equal episodes give equal text. Cures and the steps of most credit come first.

    What failed is what made the difference: an error that was cured is no failure, and a check is none of its own.
    """
    cures = in_order(_cures(episode.steps))
    failed = in_order(_failures(episode.steps, outcome))
    worked = in_order((*cures, *_best(episode))) if outcome.reward > 0.5 else cures
    return Reflection(
        worked=worked[:LINES],
        failed=failed[:LINES],
        advice=in_order(_advice(episode.steps, cures, outcome))[:LINES],
    )


def _cures(steps: Sequence[Step]) -> list[str]:
    lines = []
    for place, step in enumerate(steps):
        cure = attempt(steps, place) if step.error is not None else None
        if cure and cure[1]:
            lines.append(f"{' → '.join(cure[0])} cured {_short(step.error or '')}")
    return lines


def _best(episode: Episode) -> list[str]:
    valued = zip(episode.credit, episode.steps[-len(episode.credit) :], strict=False)
    good = sorted(((value, step) for value, step in valued if step.error is None), key=lambda pair: -pair[0])
    return [
        f"{deed(step)} ({_short(str(step.result))})" if step.result else deed(step)
        for _, step in good[:LINES]
    ]


def _failures(steps: Sequence[Step], outcome: Outcome) -> list[str]:
    lines = [
        f"{deed(step)}: {_short(error)}" if own else f"{deed(step)} did not cure {_short(error)}"
        for step, error, own in blamed(steps)
    ]
    if outcome.ending in ("failure", "abstained") and outcome.reason:
        lines.insert(0, _short(outcome.reason))
    if outcome.verified is not None and outcome.verified < 0.5 < outcome.claimed:
        lines.insert(0, "it was called done, but the check said otherwise")
    return lines


def _advice(steps: Sequence[Step], cures: Sequence[str], outcome: Outcome) -> list[str]:
    lines = [f"{AGAIN}{cure.partition(' cured ')[0]}" for cure in cures]
    if outcome.reward <= 0.5:
        lines += [f"{AVOID}{deed(step)}" for step, _, _ in blamed(steps)]
    return lines or (["do the same again"] if outcome.reward > 0.5 else ["try another way"])


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _LENGTH else line[: _LENGTH - 1] + "…"
