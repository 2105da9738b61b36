"""Which tools followed each other, and what they did. Knows one episode."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Final

from esper.memory.learning.course import Course
from esper.memory.learning.observation import NUM_INTERNED, Observation, Shown
from esper.memory.learning.wording import Run, runs

LENGTHS: Final = (3,)
LONGEST_RUN: Final = 12
"""A whole episode of at most so many symbols is a sequence of its own."""


def sequences(course: Course, reward: float) -> Iterator[Shown]:
    """The whole run of tools and of tools with what they did, and contiguous sub-sequences of three tools."""
    found = course.runs
    for whole, exact in ((found, False), (runs(course.deeds, course.steps), True)):
        if 2 <= len(whole) <= LONGEST_RUN:
            yield _shown(course, whole, reward, exact=exact)
    for length in LENGTHS:
        for start in range(len(found) - length + 1):
            yield _shown(course, found[start : start + length], reward)


def _shown(course: Course, window: list[Run], reward: float, *, exact: bool = False) -> Shown:
    names = tuple([name for name, _, _ in window])
    one = _sequence(course.episode.namespace, course.scope, names, exact)
    return one, window[0][1], window[-1][2], reward


@lru_cache(maxsize=NUM_INTERNED)
def _sequence(namespace: str, scope: str, names: tuple[str, ...], exact: bool) -> Observation:
    return Observation.of(namespace, "sequence", names, scope=scope, exact=exact)
