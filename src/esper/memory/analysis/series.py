"""One number an episode, or a day, in the order of time. Does not know what is concluded from it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from statistics import fmean
from typing import Final, Literal

import msgspec

from esper.errors import AnalysisError
from esper.memory.memory import Memory
from esper.memory.records import Episode
from esper.memory.stores.store import Filter

Metric = Literal["success", "latency", "tokens", "score"]
By = Literal["episode", "day"]

_PAGE: Final = 500
_DAY: Final = 86_400 * 10**9
_TOP: Final[dict[Metric, float | None]] = {"success": 1.0, "latency": None, "tokens": None, "score": 1.0}


class Point(msgspec.Struct, frozen=True):
    """The value at a time in nanoseconds; ``episodes`` lists those it is the mean of, oldest first."""

    at: int
    value: float
    episodes: tuple[str, ...]


class Series(msgspec.Struct, frozen=True):
    """A metric over time, oldest first. No value lies below 0, nor above ``top`` where there is one."""

    metric: Metric
    points: tuple[Point, ...]

    @property
    def values(self) -> list[float]:
        """The values alone."""
        return [point.value for point in self.points]

    @property
    def top(self) -> float | None:
        """The largest value that can be; ``None`` where there is no bound."""
        return _TOP[self.metric]

    def at_least(self, num_points: int) -> None:
        """Raises ``AnalysisError`` where there are fewer points."""
        if len(self.points) < num_points:
            raise AnalysisError(
                f"{len(self.points)} points of {self.metric} are too few, {num_points} are needed: "
                "record more episodes, take every task type, or one point an episode"
            )


def series(
    memory: Memory, metric: Metric = "success", *, task_type: str | None = None, by: By = "episode"
) -> Series:
    """A metric over all completed episodes of the memory's namespace, by the time at which they started.

    ``success`` is the reward in [0, 1], ``latency`` the seconds from start to end, ``tokens`` the sum over the steps,
    ``score`` the total in [0, 1]. Episodes that do not know theirs are left out. ``day`` takes the mean of each day
    (UTC); days without an episode have no point.
    """
    points = sorted(_points(memory, metric, task_type), key=lambda point: (point.at, point.episodes))
    return Series(metric, tuple(_days(points) if by == "day" else points))


def _points(memory: Memory, metric: Metric, task_type: str | None) -> Iterator[Point]:
    for episode in _completed(memory, task_type, steps=metric == "tokens"):
        value = _value(episode, metric)
        if value is not None:
            yield Point(episode.started, value, (episode.id,))


def _completed(memory: Memory, task_type: str | None, *, steps: bool) -> Iterator[Episode]:
    wanted = Filter(namespace=memory.namespace, task_type=task_type, state="completed")
    before = None
    while page := memory.episodes(wanted, limit=_PAGE, before=before):
        before = page[-1].id
        ids = [episode.id for episode in page]
        yield from memory.get_many(ids).values() if steps else page


def _value(episode: Episode, metric: Metric) -> float | None:
    match metric:
        case "success":
            return episode.outcome.reward if episode.outcome else None
        case "score":
            return episode.score.total if episode.score else None
        case "latency":
            return (episode.ended - episode.started) / 1e9 if episode.ended else None
        case "tokens":
            told = [step.tokens for step in episode.steps if step.tokens is not None]
            return float(sum(told)) if told else None


def _days(points: list[Point]) -> Iterator[Point]:
    for day, found in groupby(points, key=lambda point: point.at // _DAY):
        members = list(found)
        ids = tuple(id for point in members for id in point.episodes)
        yield Point(day * _DAY, fmean(point.value for point in members), ids)
