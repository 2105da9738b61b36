"""``esper memory analyse``: how things go over time. Does not know how it is worked out."""

from __future__ import annotations

import datetime
from typing import Annotated, Any

import msgspec

from esper.apps.memory.opened import Json, opened
from esper.apps.memory.shown import moment
from esper.apps.terminal import Context, Option, Typer, echo, print_json
from esper.memory.analysis import (
    Anomaly,
    By,
    Change,
    Expected,
    Metric,
    Series,
    anomalies,
    changepoints,
    forecast,
    series,
)

_CHANGES = ("when", "mean before", "mean from then on")
_ANOMALIES = ("when", "value", "apart by", "episodes")
_EXPECTED = ("point", "expected", "from", "to")


class Findings(msgspec.Struct, frozen=True):
    """A series, a point for each ``by``, with all that is concluded from it."""

    by: By
    series: Series
    changes: list[Change]
    anomalies: list[Anomaly]
    forecast: list[Expected]


def add_to(app: Typer) -> None:
    """Put the command right under ``esper memory``."""
    app.command()(analyse)


def analyse(
    context: Context,
    *,
    metric: Annotated[Metric, Option(help="success and score in [0, 1], latency in seconds")] = "success",
    task_type: Annotated[str | None, Option("--type", help="this kind of task alone")] = None,
    by: Annotated[By, Option(help="a point for each episode, or the mean of each day (UTC)")] = "episode",
    horizon: Annotated[int, Option(help="forecast so many points", min=1)] = 5,
    level: Annotated[
        float, Option(help="chance that a point lies in its interval", min=0.01, max=0.99)
    ] = 0.9,
    as_json: Json = False,
) -> None:
    """Say how it goes over time: changes of level, values that stand apart, and what to expect next.

    Ten points are needed, and pip install 'esper-grow\\[analysis]'.
    """
    with opened(context) as memory:
        found = series(memory, metric, task_type=task_type, by=by)
    expected = forecast(found, horizon, level=level)
    findings = Findings(by, found, changepoints(found), anomalies(found), expected)
    return print_json(msgspec.to_builtins(findings)) if as_json else _print(findings)


def _print(found: Findings) -> None:
    from esper.apps.display import print_table

    points = found.series.points
    since = _when(points[0].at, found.by)
    echo(f"{len(points)} points of {found.series.metric}, one for each {found.by}, since {since}")
    for words, columns, rows in (
        ("changes", _CHANGES, _change_rows(found)),
        ("values that stand apart", _ANOMALIES, _anomaly_rows(found)),
        ("to be expected", _EXPECTED, _expected_rows(found)),
    ):
        echo(f"\n{words}:" if rows else f"\n{words}: none")
        if rows:
            print_table(columns, rows)


def _when(at: int, by: By) -> str:
    # A day begins at midnight UTC, which is no time of day for anybody else.
    return (
        moment(at)
        if by == "episode"
        else f"{datetime.datetime.fromtimestamp(at / 1e9, datetime.UTC):%Y-%m-%d}"
    )


def _change_rows(found: Findings) -> list[list[Any]]:
    return [[_when(one.at, found.by), one.before, one.after] for one in found.changes]


def _anomaly_rows(found: Findings) -> list[list[Any]]:
    return [
        [_when(one.point.at, found.by), one.point.value, one.distance, " ".join(one.point.episodes)]
        for one in found.anomalies
    ]


def _expected_rows(found: Findings) -> list[list[Any]]:
    first = len(found.series.points) + 1
    return [[number, one.mean, one.lower, one.upper] for number, one in enumerate(found.forecast, first)]
