"""What an episode did, step by step, by the names that patterns are made of. Knows one episode."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from esper.memory.learning.attempts import attempt
from esper.memory.learning.wording import deed, failing, runs, scope, symbol
from esper.memory.records import Episode

START: Final = "at the start"


class Course:
    """Every name is made once here, and read by all that looks for patterns.

    ``before[n]`` says in words what came just before step ``n`` (``after pytest failed``, ``at the start``), and
    ``exactly_before[n]`` with which error. ``attempts`` tells of each error, by its place, what was done about it.
    """

    __slots__ = (
        "attempts",
        "before",
        "deeds",
        "episode",
        "exactly_before",
        "runs",
        "scope",
        "steps",
        "symbols",
    )

    def __init__(self, episode: Episode) -> None:
        self.episode = episode
        self.steps = steps = episode.steps
        self.scope = scope(episode)
        self.symbols = [symbol(step) for step in steps]
        self.deeds = [deed(step) for step in steps]
        self.runs = runs(self.symbols, steps)
        errors = [place for place, step in enumerate(steps) if step.error is not None]
        told = {place: attempt(steps, place) for place in errors}
        self.attempts = {place: found for place, found in told.items() if found is not None}
        self.before = [START, *map(_after, self.symbols)][: len(steps)]
        self.exactly_before = self.before.copy()
        for place in errors:
            if place + 1 < len(steps):
                self.before[place + 1] += " failed"
                self.exactly_before[place + 1] = failing(steps[place])

    def begins(self, place: int) -> bool:
        """Whether the step at ``place`` is not the one before once more."""
        return (
            not place
            or self.steps[place - 1].error is not None
            or self.symbols[place - 1] != self.symbols[place]
        )


@lru_cache(maxsize=1_024)
def _after(name: str) -> str:
    return f"after {name}"
