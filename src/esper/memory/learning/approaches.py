"""Which way was taken in which situation. Knows one episode."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from esper.memory.learning.observation import Observation
from esper.memory.learning.wording import in_order, runs, scope
from esper.memory.records import Episode

LONGEST: Final = 6


def approaches(episode: Episode, reward: float) -> Iterator[Observation]:
    """Context → the distinct tools in the order of their first use, at most six."""
    if not episode.steps or not episode.situation:
        return
    yield Observation(
        kind="approach",
        scope=scope(episode),
        condition=_context_words(episode) or "such tasks",
        actions=in_order(name for name, _, _ in runs(episode.steps))[:LONGEST],
        first=episode.steps[0].number,
        last=episode.steps[-1].number,
        reward=reward,
    )


def _context_words(episode: Episode) -> str:
    """Categories only: a number is hardly ever the same twice."""
    words = {name: value for name, value in episode.context.items() if isinstance(value, str | bool)}
    return ", ".join(f"{name} {value}" for name, value in sorted(words.items()))
