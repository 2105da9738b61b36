"""Which steps cured which error, and which did not. Knows one episode."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from esper.memory.learning.observation import Observation
from esper.memory.learning.wording import deed, failing, in_order
from esper.memory.records import Episode, Step

WINDOW: Final = 8
"""A cure is looked for within so many steps after the error."""
_RETRY: Final = ("try again",)


def recoveries(episode: Episode, reward: float) -> Iterator[Observation]:
    """Error → the steps until the same tool ran without error (reward 1), or failed the same way again (reward 0)."""
    del reward  # whether an error was cured is seen in the steps, however the episode ended
    for place, step in enumerate(episode.steps):
        if step.error is None:
            continue
        cure = attempt(episode.steps, place)
        if cure is not None:
            steps, cured = cure
            yield Observation(
                kind="recovery",
                condition=failing(step),
                actions=steps,
                first=step.number,
                last=min(step.number + WINDOW, episode.steps[-1].number),
                reward=1.0 if cured else 0.0,
            )


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
