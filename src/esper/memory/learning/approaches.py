"""Which way was taken in which situation. Knows one episode."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from esper.memory.learning.course import Course
from esper.memory.learning.observation import Observation, Shown
from esper.memory.learning.wording import in_order
from esper.memory.records import Episode

LONGEST: Final = 6


def approaches(course: Course, reward: float) -> Iterator[Shown]:
    """Context → the distinct tools in the order of their first use, at most six."""
    episode = course.episode
    if not episode.steps or not episode.situation:
        return
    one = Observation.of(
        episode.namespace,
        "approach",
        in_order(name for name, _, _ in course.runs)[:LONGEST],
        scope=course.scope,
        condition=_context_words(episode) or "such tasks",
    )
    yield one, episode.steps[0].number, episode.steps[-1].number, reward


def _context_words(episode: Episode) -> str:
    """Categories only: a number is hardly ever the same twice."""
    words = {name: value for name, value in episode.context.items() if isinstance(value, str | bool)}
    return ", ".join(f"{name} {value}" for name, value in sorted(words.items()))
