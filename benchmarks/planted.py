"""Planted bottlenecks: does growth find the narrow layer, and does it beat nets whose shape was guessed?

A random ReLU teacher (20-64-64-64-10) labels normal inputs; the student has three hidden layers and starts narrow
somewhere, which costs each start 9 to 18 points against 32-32-32. At 3,000 parameters uniform nets lose 2.6 ± 0.5
points to wide-first ones (64-16-16; four teachers, 6,000 steps, 16,000 rows). The teacher replaces one with a narrow
layer of its own, on which two grown runs had missed the targets (see LOG.md); seeds 0 to 3 took part in choosing it,
4 and 5 in choosing what is offered.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import msgspec

from benchmarks.arms import (
    Plan,
    Row,
    Trained,
    control_arms,
    equal_flops_arm,
    grow,
    history_note,
    measured,
    static_arm,
)
from benchmarks.command import Options, options
from benchmarks.data import Task, Teacher, planted
from benchmarks.growers import by_widening
from benchmarks.networks import mlp, num_params, scaled_mlp
from benchmarks.pool import Job, run_jobs
from benchmarks.summary import COLUMNS, best_of, difference_notes, summary_cells
from benchmarks.table import Table, publish
from esper.events import Attached

STARTS = {"4-32-32": 1, "32-4-32": 2, "32-32-4": 3, "12-12-12": 0}
SHAPES = ((1, 1, 1), (2, 1, 1), (4, 1, 1), (8, 1, 1), (1, 2, 2), (1, 2, 1), (1, 1, 2))
INPUTS, CLASSES = 20, 10


@dataclass(frozen=True)
class Place:
    """A graft reads what layer ``l<entry>`` reads and adds to what ``l<exit>`` gives."""

    entry: int
    exit: int

    @classmethod
    def of(cls, candidate: str) -> Place:
        """The place in an event's ``candidate``, ``l1..l2 mlp(ratio=2.0)`` for example."""
        names = candidate.split(" ")[0].removesuffix("+").split("..")
        layers = [int("".join(filter(str.isdigit, name))) for name in names]
        return cls(layers[0], layers[-1])

    def opens(self, narrow: int) -> bool:
        """Whether the graft leads past the narrow output of layer ``narrow`` (0: all are narrow)."""
        return self.entry <= narrow < self.exit if narrow else self.entry < self.exit

    def touches(self, narrow: int) -> bool:
        """Whether it opens the narrow output, adds to it, or reads it."""
        return not narrow or self.opens(narrow) or narrow in (self.exit, self.entry - 1)


def student(start: str) -> tuple[int, ...]:
    """Sizes of the student's layers, inputs and classes included."""
    return (INPUTS, *map(int, start.split("-")), CLASSES)


def found_site(start: str, trained: Trained) -> str:
    """``opened``, ``touched``, ``elsewhere`` or ``nothing``: the first graft that was kept."""
    assert trained.grower is not None
    kept = [Place.of(event.candidate) for event in trained.grower.history if isinstance(event, Attached)]
    if not kept:
        return "nothing"
    narrow = STARTS[start]
    if kept[0].opens(narrow):
        return "opened"
    return "touched" if kept[0].touches(narrow) else "elsewhere"


def start_rows(start: str, plan: Plan, seed: int) -> list[Row]:
    """One start with one seed: static, grown, controls, and a sweep at the grown size and FLOPs."""
    task = planted(Teacher(seed=seed))
    build = partial(mlp, student(start))
    trained = grow(build, task.split, plan, seed, growing=by_widening, counted=True)
    note = f"{found_site(start, trained)}: {history_note(trained)}"
    uniform = partial(scaled_mlp, SHAPES[0], INPUTS, CLASSES, num_params(trained.model))
    rows = [
        static_arm("static start", build, task, plan, seed),
        measured("grown", trained, task, seed, note=note),
        *control_arms(trained, uniform, task, plan, seed),
        *best_of("best of shapes, each at equal FLOPs", sweep_rows(trained, task, plan, seed)),
    ]
    return [named(row, start) for row in rows]


def sweep_rows(trained: Trained, task: Task, plan: Plan, seed: int) -> list[Row]:
    """Static nets of many shapes, each with the parameters and the FLOPs of the grown run."""
    size = num_params(trained.model)
    builds = {str(shape): partial(scaled_mlp, shape, INPUTS, CLASSES, size) for shape in SHAPES}
    return [equal_flops_arm(arm, build, trained, task, plan, seed) for arm, build in builds.items()]


def named(row: Row, start: str) -> Row:
    """The row with the start in front of its arm."""
    return msgspec.structs.replace(row, arm=f"{start}: {row.arm}")


def over_starts(rows: list[Row]) -> list[Row]:
    """The same rows under arms that run over all starts; a seed then stands for one start and seed."""
    pooled = []
    for row in rows:
        start, arm = row.arm.split(": ", 1)
        pooled.append(msgspec.structs.replace(row, arm=arm, seed=100 * list(STARTS).index(start) + row.seed))
    return pooled


def table(rows: list[Row]) -> Table:
    """Every start by itself and all pooled, with the count of useful sites."""
    pooled = over_starts(rows)
    found = [row.note.split(":")[0] for row in pooled if row.arm == "grown"]
    counts = {word: found.count(word) for word in ("opened", "touched", "elsewhere", "nothing")}
    useful = f"useful site: {counts['opened'] + counts['touched']} of {len(found)} runs {counts}"
    notes = [useful, *difference_notes(pooled, "grown")]
    return Table(
        name="planted",
        title="Planted bottleneck: grown from four narrow starts against static nets",
        columns=COLUMNS,
        cells=summary_cells([*pooled, *rows]),
        notes=notes
        + [f"seed {row.seed}, {row.arm}: {row.note}" for row in rows if row.arm.endswith(": grown")],
        rows=[msgspec.to_builtins(row) for row in rows],
    )


def jobs(given: Options) -> list[Job]:
    """One a start and seed."""
    plan = replace(Plan(), steps=60) if given.quick else Plan()
    starts = list(STARTS)[:1] if given.quick else list(STARTS)
    return [Job(f"seed {s}", partial(start_rows, start, plan, s)) for s in given.seeds for start in starts]


def main() -> None:
    """Run all starts and publish the table."""
    given = options("planted", "Planted bottlenecks: where does growth grow, and what is it worth?")
    rows = run_jobs(jobs(given), num_workers=given.jobs)
    publish(table(rows), command=given.command, stored=not given.quick)


if __name__ == "__main__":
    main()
