"""How long does the memory take? One file that grows from 10 to 100,000 episodes, warm and in a fresh process.

``python -m benchmarks.memory.latency --publish``. Every row says which target it has, and how its median compares with
the same statement of plain SQLite measured in the same run; a ratio that grew by half against the stored one is named.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from benchmarks.memory.generated import fill
from benchmarks.memory.latency_measures import (
    Taken,
    batched,
    cached,
    completed,
    durable,
    got,
    hit_rates,
    plain_sqlite,
    recalled,
    recalled_by_meaning,
    sustained,
)
from benchmarks.memory.latency_processes import crowd, fresh
from benchmarks.table import RESULTS, Table, publish
from esper.memory import Memory
from esper.memory.journal import Options

SIZES = (10, 100, 1_000, 10_000, 100_000)
WORSE = 1.5
"""A ratio to plain SQLite that grew so many times is named."""
COLUMNS = ["what", "p50", "p95", "p99", "target of p50", "times plain SQLite"]


class Line(msgspec.Struct, kw_only=True):
    """One row: quantiles in microseconds, and the target of the median where there is one."""

    what: str
    quantiles: tuple[float, float, float]
    target: float | None
    ratio: float

    def cells(self) -> list[str]:
        """As it is printed."""
        target = "" if self.target is None else shown(self.target)
        return [self.what, *map(shown, self.quantiles), target, f"{self.ratio:.2f}"]


def shown(microseconds: float) -> str:
    """Three figures, in the unit that suits."""
    for unit, factor in (("s", 1e6), ("ms", 1e3)):
        if microseconds >= factor:
            return f"{microseconds / factor:.3g} {unit}"
    return f"{microseconds:.3g} µs"


def line(what: str, taken: Taken, plain: float, *, target: float | None = None) -> Line:
    """One row; ``plain`` is the median of the comparable statement of plain SQLite."""
    p50, p95, p99 = (float(value) for value in np.quantile(taken, [0.5, 0.95, 0.99]))
    return Line(what=what, quantiles=(p50, p95, p99), target=target, ratio=p50 / plain)


def recording_lines(folder: Path, insert: float) -> list[Line]:
    """What recording costs, whatever the size."""
    start, step = batched()
    return [
        line("start an episode, batched", start, insert, target=2.0),
        line("a step, batched", step, insert, target=0.9),
        line("a step with its part of the flush", sustained(), insert, target=10.0),
        line("a step in batches on a file", sustained(folder / "batches.db"), insert, target=10.0),
        line(
            "and its CPU time alone, in batches",
            sustained(folder / "cpu.db", watch=time.process_time),
            insert,
        ),
        line("a durable step, process", durable(folder / "process.db", "process"), insert, target=60.0),
        line("a durable step, power", durable(folder / "power.db", "power"), insert),
        line(
            "complete 10 steps with learning, in memory", completed(":memory:", 0, 500), insert, target=300.0
        ),
        line("and its CPU time alone", completed(":memory:", 0, 500, watch=time.process_time), insert),
    ]


def size_lines(path: Path, size: int, insert: float, select: float) -> list[Line]:
    """What a memory of this size costs to ask and to write, in this process, then in fresh ones and in a crowd."""
    targets = (2_000.0, 20.0, 50.0, 5_000.0) if size == 10_000 else (None,) * 4
    name = f"{size:,}:"
    lines = [
        line(f"{name} recall", recalled(path), select, target=targets[0]),
        line(f"{name} recall, cached", cached(path), select, target=targets[1]),
        line(f"{name} get an episode by id", got(path), select, target=targets[2]),
        line(f"{name} complete 10 steps with learning", completed(str(path), size, 100), insert),
    ]
    for what, taken in fresh(path).items():
        lines.append(line(f"{name} fresh process, {what}", taken, select))
    for what, taken in crowd(path).items():
        lines.append(line(f"{name} four read and two write, {what}", taken, select))
    meant = recalled_by_meaning(path)
    return [*lines, line(f"{name} recall by words and meaning", meant, select, target=targets[3])]


def measured(sizes: Sequence[int], folder: Path) -> list[Line]:
    """All rows."""
    insert, select = (float(np.median(taken)) for taken in plain_sqlite(folder / "plain.db"))
    lines = [
        line("plain SQLite, an insert", [insert], insert),
        line("plain SQLite, a point query", [select], select),
        *recording_lines(folder, insert),
    ]
    path, filled = folder / "memory.db", 0
    for size in sizes:
        with Memory(path, options=Options(max_batch=512)) as memory:
            fill(memory, range(filled, size))
        filled = size
        lines += size_lines(path, size, insert, select)
    return lines


def notes(lines: Sequence[Line], name: str) -> list[str]:
    """What misses its target, how recall grows, and what grew worse than the stored run."""
    late = [one for one in lines if one.target is not None and one.quantiles[0] > one.target]
    told = [f"misses its target: {one.what}, {shown(one.quantiles[0])}" for one in late]
    recalls = {one.what: one.quantiles[0] for one in lines if one.what.endswith(" recall")}
    if {"10,000: recall", "100,000: recall"} <= set(recalls):
        grown = recalls["100,000: recall"] / recalls["10,000: recall"]
        told.append(f"recall at 100,000 episodes costs {grown:.2f} times that at 10,000 (target: at most 4)")
    stored = RESULTS / f"{name}.json"
    before = json.loads(stored.read_text())["table"]["rows"] if stored.exists() else []
    ratios = {row["what"]: row["ratio"] for row in before}
    worse = [one for one in lines if one.ratio > WORSE * ratios.get(one.what, float("inf"))]
    return told + [
        f"slower than stored: {one.what}, {one.ratio / ratios[one.what]:.1f} times" for one in worse
    ]


def cache_notes() -> list[str]:
    """How many of common questions the query cache answers, by how often something new is learned."""
    told = []
    for every in (5, 20, 100):
        of_all, of_common = hit_rates(every)
        told.append(
            f"query cache: {100 * of_all:.0f} % of 2,000 recalls (200 questions, the nth 1/n as often), "
            f"{100 * of_common:.0f} % of those with one of the ten commonest, "
            f"where an episode ends after every {every} of them"
        )
    return told


def crowded(load: float) -> str:
    """How busy the machine was with other things: quantiles above the median hold their share of it."""
    return f"load average before the run {load:.1f} on {os.cpu_count()} cores"


def main() -> None:
    """Print the table; ``--publish`` stores it."""
    parser = argparse.ArgumentParser("python -m benchmarks.memory.latency", description=__doc__)
    parser.add_argument("--largest", type=int, default=SIZES[-1], help="episodes at most (%(default)s)")
    parser.add_argument("--publish", action="store_true", help="store the table in results/ and the README")
    given = parser.parse_args()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        lines = measured([size for size in SIZES if size <= given.largest], Path(folder))
    made = Table(
        name="memory_latency",
        title="What the memory costs",
        columns=COLUMNS,
        cells=[one.cells() for one in lines],
        notes=[*notes(lines, "memory_latency"), *cache_notes(), crowded(load)],
        rows=[msgspec.structs.asdict(one) for one in lines],
    )
    publish(made, command="python -m benchmarks.memory.latency --publish", stored=given.publish)


if __name__ == "__main__":
    main()
