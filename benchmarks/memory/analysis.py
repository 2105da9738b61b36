"""How often is the analysis wrong? Series with known answers: noise alone, one change in the middle, one wild value.

``python -m benchmarks.memory.analysis --publish``.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.table import Table, publish
from esper.memory.analysis import Metric, Point, Series, anomalies, changepoints, forecast

SEEDS = 100
LENGTHS = (20, 60, 200)
NEAR = 5
LEVEL = 0.9
COLUMNS = [
    *("values", "points", "change where none is", "change found", "points that stand apart"),
    *("wild value found", "next one in its 90 % interval"),
]

Draw = Callable[[random.Random, int], float]
KINDS: dict[str, tuple[Metric, Draw]] = {
    "normal, then 1 sd more": ("latency", lambda chance, later: chance.gauss(20 + later, 1)),
    "normal, then 2 sd more": ("latency", lambda chance, later: chance.gauss(20 + 2 * later, 1)),
    "log-normal, then doubled": (
        "latency",
        lambda chance, later: (1 + later) * chance.lognormvariate(0, 0.7),
    ),
    "success .9, then .4": ("success", lambda chance, later: float(chance.random() < 0.9 - 0.5 * later)),
    "success .95, then .5": ("success", lambda chance, later: float(chance.random() < 0.95 - 0.45 * later)),
}


def made(metric: Metric, values: Sequence[float]) -> Series:
    """A series of these values, a nanosecond apart."""
    return Series(metric, tuple(Point(place, value, (str(place),)) for place, value in enumerate(values)))


def verdicts(kind: str, length: int, seed: int) -> list[float | None]:
    """What came of one series, in the order of ``COLUMNS``; ``None`` where the question has no sense."""
    metric, draw = KINDS[kind]
    chance = random.Random(f"{kind} {length} {seed}")
    *calm, coming = [draw(chance, 0) for _ in range(length + 1)]
    changed = calm[: length // 2] + [draw(chance, 1) for _ in range(length - length // 2)]
    wild = [*calm[: length // 2], 30 + max(calm), *calm[length // 2 + 1 :]]
    found = changepoints(made(metric, changed))
    apart = {one.index for one in anomalies(made(metric, wild))}
    numeric = metric == "latency"
    return [
        float(bool(changepoints(made(metric, calm)))),
        float(any(abs(one.index - length // 2) <= NEAR for one in found)),
        len(anomalies(made(metric, calm))) / length,
        float(length // 2 in apart) if numeric else None,
        float(foreseen(made(metric, calm), coming)) if numeric else None,
    ]


def foreseen(series: Series, coming: float) -> bool:
    """Whether the value that came lies in the interval of the forecast."""
    (expected,) = forecast(series, 1, level=LEVEL)
    return expected.lower <= coming <= expected.upper


def row(kind: str, length: int, seeds: int) -> list[float | None]:
    """The mean of each verdict over the seeds."""
    columns = zip(*(verdicts(kind, length, seed) for seed in range(seeds)), strict=True)
    return [None if None in column else sum(filter(None, column)) / seeds for column in columns]


def main() -> None:
    """Print the table; ``--publish`` stores it."""
    parser = argparse.ArgumentParser("python -m benchmarks.memory.analysis", description=__doc__)
    parser.add_argument("--seeds", type=int, default=SEEDS, help="series of each kind (%(default)s)")
    parser.add_argument("--publish", action="store_true", help="store the table in results/ and the README")
    given = parser.parse_args()
    rows: list[dict[str, Any]] = []
    cells: list[list[str]] = []
    for kind in KINDS:
        for length in LENGTHS:
            shares = row(kind, length, given.seeds)
            cells.append([kind, str(length), *("–" if one is None else f"{one:.1%}" for one in shares)])
            rows.append(dict(zip(COLUMNS, [kind, length, *shares], strict=True)))
    table = Table(
        name="memory_analysis",
        title="How often the analysis of episodes is wrong",
        columns=COLUMNS,
        cells=cells,
        notes=[
            f"{given.seeds} series of independent values a row",
            f"a change in the middle counts as found within {NEAR} points of it",
        ],
        rows=rows,
    )
    publish(table, command="python -m benchmarks.memory.analysis --publish", stored=given.publish)


if __name__ == "__main__":
    main()
