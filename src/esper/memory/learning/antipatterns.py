"""What went wrong by itself, whatever came of the episode. Knows one episode."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from esper.memory.learning.observation import Observation
from esper.memory.learning.recoveries import attempt
from esper.memory.learning.wording import deed, error_signature, scope
from esper.memory.records import Episode, Step


def antipatterns(episode: Episode, reward: float) -> Iterator[Observation]:
    """A deed that never ran without an error: reward 0. One that did: reward 1, which begins no warning.

    A deed that was left and then tried again is a check of what was done between, and tells nothing of itself.
    """
    del reward  # a warning is right or wrong by its own step
    kind = scope(episode)
    worked = {deed(step) for step in episode.steps if step.error is None}
    checks = _checks(episode.steps) - worked
    for place, step in enumerate(episode.steps):
        done = deed(step)
        if done in checks:
            continue
        broken = step.error is not None and done not in worked
        yield Observation(
            kind="antipattern",
            scope=kind,
            actions=(done,),
            first=step.number,
            last=step.number,
            reward=0.0 if broken else 1.0,
            instead=_cure(episode.steps, place) if broken else (),
            pitfall=error_signature(step.error or "") if broken else "",
            counter=not broken,
        )


def _checks(steps: Sequence[Step]) -> set[str]:
    """What was done again after something else was done."""
    last: dict[str, int] = {}
    found: set[str] = set()
    for place, step in enumerate(steps):
        done = deed(step)
        if last.get(done, place) < place - 1:
            found.add(done)
        last[done] = place
    return found


def _cure(steps: Sequence[Step], place: int) -> tuple[str, ...]:
    found = attempt(steps, place)
    return found[0] if found and found[1] else ()
