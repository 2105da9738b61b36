"""False growth: how often is a graft kept where nothing can be gained?

Two kinds of short runs, with the settings of the planted task: labels drawn at random, and students so large
for their teacher that growth buys nothing (a teacher of 4 hidden units, a student of 64-64-64).
"""

from __future__ import annotations

from functools import partial

import msgspec

from benchmarks.arms import NOTHING, Plan, Row, grow, history_note, measured
from benchmarks.command import Options, options
from benchmarks.data import Task, Teacher, noise, planted
from benchmarks.growers import by_widening
from benchmarks.networks import mlp
from benchmarks.pool import Job, run_jobs
from benchmarks.summary import by_arm
from benchmarks.table import Table, publish

KINDS = ("labels at random", "host already sufficient")


def task_and_sizes(kind: str, seed: int) -> tuple[Task, tuple[int, ...]]:
    """The data and the student of one run."""
    if kind == KINDS[0]:
        return noise(planted(Teacher(seed=seed)), seed), (20, 32, 32, 32, 10)
    return planted(Teacher(widths=(4,), seed=seed)), (20, 64, 64, 64, 10)


def run_rows(kind: str, plan: Plan, seed: int) -> list[Row]:
    """One growing run; its note says what was kept."""
    task, sizes = task_and_sizes(kind, seed)
    trained = grow(partial(mlp, sizes), task.split, plan, seed, growing=by_widening)
    return [measured(kind, trained, task, seed, note=history_note(trained))]


def table(rows: list[Row]) -> Table:
    """Kept grafts by kind, each of them named."""
    cells, notes = [], []
    for kind, group in by_arm(rows).items():
        false = [row for row in group if row.note != NOTHING]
        accuracy = sum(row.test_accuracy for row in group) / len(group)
        cells.append([kind, str(len(group)), str(len(false)), f"{accuracy:.4f}"])
        notes += [f"{kind}, seed {row.seed}: {row.note}" for row in false]
    return Table(
        name="false_growth",
        title="False growth: short runs that should keep nothing",
        columns=["kind", "runs", "runs with a kept graft", "test accuracy"],
        cells=cells,
        notes=notes,
        rows=[msgspec.to_builtins(row) for row in rows],
    )


def jobs(given: Options) -> list[Job]:
    """One a kind and seed."""
    plan = Plan(steps=100) if given.quick else Plan(steps=2_000)
    return [
        Job(f"{kind}, seed {seed}", partial(run_rows, kind, plan, seed))
        for seed in given.seeds
        for kind in KINDS
    ]


def main() -> None:
    """Run both kinds and publish the count."""
    given = options("false_growth", "How often is a graft kept where nothing can be gained?", seeds=50)
    rows = run_jobs(jobs(given), num_workers=given.jobs)
    publish(table(rows), command=given.command, stored=not given.quick)


if __name__ == "__main__":
    main()
