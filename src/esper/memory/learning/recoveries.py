"""Which steps cured which error, and which did not. Knows one episode."""

from __future__ import annotations

from collections.abc import Iterator

from esper.memory.learning.attempts import WINDOW
from esper.memory.learning.course import Course
from esper.memory.learning.observation import Observation, Shown
from esper.memory.learning.wording import failing


def recoveries(course: Course, reward: float) -> Iterator[Shown]:
    """Error → the steps until the same tool ran without error (reward 1), or failed the same way again (reward 0)."""
    del reward  # whether an error was cured is seen in the steps, however the episode ended
    last = course.steps[-1].number if course.steps else 0
    for place, (steps, cured) in course.attempts.items():
        step = course.steps[place]
        one = Observation.of(course.episode.namespace, "recovery", steps, condition=failing(step))
        yield one, step.number, min(step.number + WINDOW, last), 1.0 if cured else 0.0
