"""What was chosen after what had just happened. Knows one episode."""

from __future__ import annotations

from collections.abc import Iterator

from esper.memory.learning.observation import Observation
from esper.memory.learning.recoveries import attempt
from esper.memory.learning.wording import deed, failing, scope, symbol
from esper.memory.records import Episode, Step


def decisions(episode: Episode, reward: float) -> Iterator[Observation]:
    """Condition (the step before and whether it failed) → the next tool, and what it did; the reward is the episode's.

    What was done about an error that was tried again is a recovery, and judged by itself.
    """
    before: Step | None = None
    kind = scope(episode)
    for place, step in enumerate(episode.steps):
        name, done = symbol(step), deed(step)
        if before is None or before.error is not None or symbol(before) != name:
            previous = symbol(before) if before is not None and before.error is None else ""
            yield _decision(after(before), name, step, reward, previous=previous)
        if done != name and not _judged(episode, place):
            yield _decision(_exactly(before), done, step, reward, scope=kind)
        before = step


def _decision(
    condition: str, action: str, step: Step, reward: float, *, previous: str = "", scope: str = ""
) -> Observation:
    return Observation(
        kind="decision",
        condition=condition,
        actions=(action,),
        first=step.number,
        last=step.number,
        reward=reward,
        previous=previous,
        scope=scope,
        exact=not previous and action != symbol(step),
    )


def _judged(episode: Episode, place: int) -> bool:
    erred = place > 0 and episode.steps[place - 1].error is not None
    return erred and attempt(episode.steps, place - 1) is not None


def _exactly(step: Step | None) -> str:
    return failing(step) if step is not None and step.error is not None else after(step)


def after(step: Step | None) -> str:
    """The condition in words: ``after pytest failed``, ``after pytest``, ``at the start``."""
    if step is None:
        return "at the start"
    return f"after {symbol(step)} failed" if step.error is not None else f"after {symbol(step)}"
