"""Which tools followed each other, and what they did. Knows one episode."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from esper.memory.learning.observation import Observation
from esper.memory.learning.wording import Run, deed, runs, scope
from esper.memory.records import Episode

LENGTHS: Final = (3,)
LONGEST_RUN: Final = 12
"""A whole episode of at most so many symbols is a sequence of its own."""


def sequences(episode: Episode, reward: float) -> Iterator[Observation]:
    """The whole run of tools and of tools with what they did, and contiguous sub-sequences of three tools."""
    kind = scope(episode)
    found = runs(episode.steps)
    for whole, exact in ((found, False), (runs(episode.steps, name=deed), True)):
        if 2 <= len(whole) <= LONGEST_RUN:
            yield _sequence(whole, kind, reward, exact=exact)
    for length in LENGTHS:
        for start in range(len(found) - length + 1):
            yield _sequence(found[start : start + length], kind, reward)


def _sequence(window: list[Run], scope: str, reward: float, *, exact: bool = False) -> Observation:
    return Observation(
        kind="sequence",
        scope=scope,
        actions=tuple(name for name, _, _ in window),
        first=window[0][1],
        last=window[-1][2],
        reward=reward,
        exact=exact,
    )
