"""Which tools followed each other, and which one was chosen after what. Knows one episode."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from esper.memory.learning.observation import Observation
from esper.memory.learning.wording import runs, scope
from esper.memory.records import Episode

LENGTHS: Final = (3,)
LONGEST_RUN: Final = 12
"""A whole episode of at most so many symbols is a sequence of its own."""


def sequences(episode: Episode, reward: float) -> Iterator[Observation]:
    """Contiguous sub-sequences of three tools, and the whole run."""
    found = runs(episode.steps)
    lengths = {*LENGTHS, len(found)} if 2 <= len(found) <= LONGEST_RUN else {*LENGTHS}
    kind = scope(episode)
    for length in sorted(lengths, reverse=True):
        for start in range(len(found) - length + 1):
            window = found[start : start + length]
            yield Observation(
                kind="sequence",
                scope=kind,
                actions=tuple(name for name, _, _ in window),
                first=window[0][1],
                last=window[-1][2],
                reward=reward,
            )
