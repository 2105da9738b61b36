"""Episodes that went round in circles. Pure functions over records."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from typing import Final

import msgspec

from esper.memory.hygiene.finding import Finding
from esper.memory.records import Episode, Step

MIN_ROUNDS: Final = 3
MAX_PERIOD: Final = 5


def loops(episode: Episode) -> Iterator[Finding]:
    """The longest place where one to five steps come three times or more, one round right after the other.

    Steps are the same when tool, action and parameters are.
    """
    keys = [_key(step) for step in episode.steps]
    places = [(period, start) for period in range(1, MAX_PERIOD + 1) for start in range(len(keys))]
    counted = [(_rounds(keys, start, period), period, start) for period, start in places]
    repeats = [one for one in counted if one[0] >= MIN_ROUNDS]
    if not repeats:
        return
    rounds, period, start = max(repeats, key=lambda one: (one[0] * one[1], -one[1], -one[2]))
    names = " → ".join(step.tool or step.action for step in episode.steps[start : start + period])
    last = start + rounds * period
    message = f"{names}: {rounds} times over, steps {start + 1} to {last}; a loop teaches nothing after two"
    yield Finding("loop", episode.id, message)


def _rounds(keys: Sequence[Hashable], start: int, period: int) -> int:
    one = keys[start : start + period]
    rounds = 1
    while keys[start + rounds * period : start + (rounds + 1) * period] == one:
        rounds += 1
    return rounds if len(one) == period else 0


def _key(step: Step) -> Hashable:
    return step.tool, step.action, msgspec.json.encode(step.parameters, order="deterministic")
