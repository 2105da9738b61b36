"""What went wrong by itself, whatever came of the episode. Knows one episode."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache

from esper.memory.learning.course import Course
from esper.memory.learning.observation import NUM_INTERNED, Observation, Shown
from esper.memory.learning.wording import error_signature


def antipatterns(course: Course, reward: float) -> Iterator[Shown]:
    """A deed that never ran without an error: reward 0. One that did: reward 1, which begins no warning.

    A deed that was left and then tried again is a check of what was done between, and tells nothing of itself.
    """
    del reward  # a warning is right or wrong by its own step
    space, kind = course.episode.namespace, course.scope
    worked = {done for done, step in zip(course.deeds, course.steps, strict=True) if step.error is None}
    checks = _checks(course.deeds) - worked
    for place, (done, step) in enumerate(zip(course.deeds, course.steps, strict=True)):
        if done in worked:
            yield _worked(space, kind, done), step.number, step.number, 1.0
        elif done not in checks:
            cure = course.attempts.get(place)
            one = Observation.of(
                space,
                "antipattern",
                (done,),
                scope=kind,
                instead=cure[0] if cure and cure[1] else (),
                pitfall=error_signature(step.error or ""),
            )
            yield one, step.number, step.number, 0.0


@lru_cache(maxsize=NUM_INTERNED)
def _worked(namespace: str, scope: str, done: str) -> Observation:
    return Observation.of(namespace, "antipattern", (done,), scope=scope, counter=True)


def _checks(deeds: Sequence[str]) -> set[str]:
    """What was done again after something else was done."""
    last: dict[str, int] = {}
    found: set[str] = set()
    for place, done in enumerate(deeds):
        if last.get(done, place) < place - 1:
            found.add(done)
        last[done] = place
    return found
