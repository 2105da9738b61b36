"""Which tool was chosen after what had just happened. Knows one episode."""

from __future__ import annotations

from collections.abc import Iterator

from esper.memory.learning.observation import Observation
from esper.memory.learning.wording import symbol
from esper.memory.records import Episode, Step


def decisions(episode: Episode, reward: float) -> Iterator[Observation]:
    """Condition (the step before and whether it failed) → next tool; the reward is the episode's."""
    before: Step | None = None
    for step in episode.steps:
        name = symbol(step)
        if before is None or before.error is not None or symbol(before) != name:
            yield Observation(
                kind="decision",
                condition=after(before),
                actions=(name,),
                first=step.number,
                last=step.number,
                reward=reward,
                previous=symbol(before) if before is not None and before.error is None else "",
            )
        before = step


def after(step: Step | None) -> str:
    """The condition in words: ``after pytest failed``, ``after pytest``, ``at the start``."""
    if step is None:
        return "at the start"
    return f"after {symbol(step)} failed" if step.error is not None else f"after {symbol(step)}"
