"""Two spirals from ``nn.Linear(2, 2)`` alone: can a network without a hidden unit grow what it needs?"""

from __future__ import annotations

from functools import partial

import msgspec
from torch import nn

from benchmarks.arms import (
    Build,
    Plan,
    Row,
    Session,
    control_arms,
    grown_twice,
    history_note,
    measured,
    static_arm,
)
from benchmarks.command import Options, options
from benchmarks.data import spirals
from benchmarks.growers import grower
from benchmarks.networks import mlp, num_params, scaled_mlp
from benchmarks.pool import Job, run_jobs
from benchmarks.summary import COLUMNS, best_of, difference_notes, summary_cells
from benchmarks.table import Table, publish
from esper import Budget, Grower, Recipe

GROWN = "grown from Linear(2, 2)"
SOLVED = 0.99
RECIPES = (Recipe.of("mlp", hidden=32), Recipe.of("mlp", ratio=2.0), Recipe.of("gated", ratio=4.0))
SWEEP: dict[str, Build] = {
    "-".join(map(str, hidden)): partial(mlp, (2, *hidden, 2)) for hidden in ((16,), (64,), (16, 16), (32, 32))
}


def growing(session: Session) -> Grower:
    """Sizes in absolute numbers: relative to a layer of two units every recipe and every budget is tiny."""
    return grower(session, recipes=RECIPES, budget=Budget(params_ratio=None, params=2_000))


def seed_rows(plan: Plan, seed: int) -> list[Row]:
    """All arms of one seed."""
    task = spirals(seed)
    start = partial(nn.Linear, 2, 2)
    trained = grown_twice(start, task, plan, seed, growing)
    uniform = partial(scaled_mlp, (1, 1), 2, 2, num_params(trained.model))
    return [
        static_arm("static start", start, task, plan, seed),
        measured(GROWN, trained, task, seed, note=history_note(trained)),
        *control_arms(trained, uniform, task, plan, seed),
        *(static_arm(arm, build, task, plan, seed) for arm, build in SWEEP.items()),
    ]


def table(rows: list[Row]) -> Table:
    """All arms, and how many seeds were solved."""
    grown = [row for row in rows if row.arm == GROWN]
    solved = sum(row.test_accuracy >= SOLVED for row in grown)
    everything = [
        *rows,
        *best_of("best of the sweep by held-out accuracy", [r for r in rows if r.arm in SWEEP]),
    ]
    notes = [f"solved (test accuracy at least {SOLVED}): {solved} of {len(grown)}"]
    return Table(
        name="spirals",
        title="Two spirals from no hidden unit",
        columns=COLUMNS,
        cells=summary_cells(everything),
        notes=notes + difference_notes(everything, GROWN) + [f"seed {row.seed}: {row.note}" for row in grown],
        rows=[msgspec.to_builtins(row) for row in everything],
    )


def jobs(given: Options) -> list[Job]:
    """One a seed."""
    plan = Plan(steps=100) if given.quick else Plan()
    return [Job(f"seed {seed}", partial(seed_rows, plan, seed)) for seed in given.seeds]


def main() -> None:
    """Run all seeds and publish the table."""
    given = options("spirals", "Two spirals from nn.Linear(2, 2).")
    rows = run_jobs(jobs(given), num_workers=given.jobs)
    publish(table(rows), command=given.command, stored=not given.quick)


if __name__ == "__main__":
    main()
