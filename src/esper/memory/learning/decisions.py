"""What was chosen after what had just happened. Knows one episode."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

from esper.memory.learning.course import Course
from esper.memory.learning.observation import NUM_INTERNED, Observation, Shown


def decisions(course: Course, reward: float) -> Iterator[Shown]:
    """Condition (the step before and whether it failed) → the next tool, and what it did; the reward is the episode's.

    What was done about an error that was tried again is a recovery, and judged by itself.
    """
    space, steps, symbols = course.episode.namespace, course.steps, course.symbols
    for place, (step, name, done) in enumerate(zip(steps, symbols, course.deeds, strict=True)):
        number = step.number
        if course.begins(place):
            previous = symbols[place - 1] if place and steps[place - 1].error is None else ""
            yield _choice(space, course.before[place], name, previous), number, number, reward
        if done != name and place - 1 not in course.attempts:
            yield _deed(space, course.scope, course.exactly_before[place], done), number, number, reward


@lru_cache(maxsize=NUM_INTERNED)
def _choice(namespace: str, condition: str, tool: str, previous: str) -> Observation:
    return Observation.of(namespace, "decision", (tool,), condition=condition, previous=previous)


@lru_cache(maxsize=NUM_INTERNED)
def _deed(namespace: str, scope: str, condition: str, done: str) -> Observation:
    return Observation.of(namespace, "decision", (done,), scope=scope, condition=condition, exact=True)
