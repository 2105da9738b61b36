"""Records that wait in vain. Pure functions over records."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from esper.memory.forgetting import idle
from esper.memory.hygiene.finding import Finding
from esper.memory.learning.merge import DAY
from esper.memory.records import Episode, Item

FORGOTTEN: Final = 7 * DAY
"""An episode open for so long (nanoseconds) has probably been left."""


def unused(item: Item, now: int) -> Iterator[Finding]:
    """A pattern or note that maintenance would retire."""
    if item.tally.state == "active" and idle(item, now):
        yield Finding("stale", item.id, f"shown {item.tally.shown} times, never used: maintain retires it")


def left_open(episode: Episode, now: int) -> Iterator[Finding]:
    """An open episode in which nothing has happened for a week."""
    last = episode.steps[-1].at if episode.steps else episode.started
    if episode.state == "open" and now - max(last, episode.started) > FORGOTTEN:
        yield Finding("stale", episode.id, "open for a week without a step: complete, fail or abandon it")
