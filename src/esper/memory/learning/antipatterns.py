"""What failed in a situation, and what helped instead. Knows one episode."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from esper.memory.learning.observation import Observation
from esper.memory.learning.recoveries import attempt
from esper.memory.learning.wording import deed, error_signature, scope
from esper.memory.records import Episode, Step


def antipatterns(episode: Episode, reward: float) -> Iterator[Observation]:
    """A deed that never worked: reward 1, the warning is right. A deed that worked speaks against its warning."""
    del reward  # a warning is right or wrong by its own step
    kind = scope(episode)
    worked = {deed(step) for step in episode.steps if step.error is None}
    for place, step in enumerate(episode.steps):
        if step.error is None or deed(step) in worked:
            yield Observation(
                kind="antipattern",
                scope=kind,
                actions=(deed(step),),
                first=step.number,
                last=step.number,
                reward=0.0,
                counter=True,
            )
        else:
            yield Observation(
                kind="antipattern",
                scope=kind,
                actions=(deed(step),),
                first=step.number,
                last=step.number,
                reward=1.0,
                instead=_cure(episode.steps, place),
                pitfall=error_signature(step.error),
            )


def _cure(steps: Sequence[Step], place: int) -> tuple[str, ...]:
    found = attempt(steps, place)
    return found[0] if found and found[1] else ()
