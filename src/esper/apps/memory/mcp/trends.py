"""What the tool analyse returns: how things go over time. Knows no protocol."""

from __future__ import annotations

import datetime

from pydantic import Field

from esper.apps.memory.mcp.results import Result
from esper.memory.analysis import Metric, anomalies, changepoints, forecast
from esper.memory.analysis.series import Series


class ToldChange(Result):
    """The mean was another one from here on."""

    since: datetime.datetime
    before: float
    after: float


class ToldAnomaly(Result):
    """A value that stands apart."""

    at: datetime.datetime
    value: float
    episodes: list[str]


class ToldExpectation(Result):
    """A value to come, and where it lies nine times in ten."""

    mean: float
    lower: float
    upper: float


class Trend(Result):
    """A series of episodes with all that is concluded from it."""

    metric: Metric
    num_points: int = Field(description="one for each episode or day, oldest first")
    latest: list[float] = Field(description="the last values")
    changes: list[ToldChange]
    anomalies: list[ToldAnomaly]
    forecast: list[ToldExpectation]

    @classmethod
    def of(cls, found: Series, horizon: int) -> Trend:
        """Everything that can be said of a series.

        Raises:
            ConfigurationError: a library that it needs is not installed.
            AnalysisError: there are too few points.
        """
        return cls(
            metric=found.metric,
            num_points=len(found.points),
            latest=found.values[-horizon:],
            changes=[
                ToldChange(since=_moment(one.at), before=one.before, after=one.after)
                for one in changepoints(found)
            ],
            anomalies=[
                ToldAnomaly(
                    at=_moment(one.point.at), value=one.point.value, episodes=list(one.point.episodes)
                )
                for one in anomalies(found)
            ],
            forecast=[
                ToldExpectation(mean=one.mean, lower=one.lower, upper=one.upper)
                for one in forecast(found, horizon)
            ],
        )


def _moment(at: int) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(at / 1e9, datetime.UTC)
