"""MNIST-1D: a network grown from an MLP of 32 units, and every honest control.

All arms see the same batches per seed and the same schedule. The arms whose size or budget comes from a grown
run (final architecture from scratch, uniform static net, equal FLOPs) follow it in the same job.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import msgspec

from benchmarks.arms import (
    Build,
    Growing,
    Plan,
    Row,
    control_arms,
    equal_flops_arm,
    grown_twice,
    history_note,
    measured,
    static_arm,
)
from benchmarks.command import Options, options
from benchmarks.data import mnist1d
from benchmarks.growers import by_chance, by_rules
from benchmarks.networks import cnn1d, mlp, scaled_mlp
from benchmarks.pool import Job, run_jobs
from benchmarks.summary import COLUMNS, best_of, by_arm, difference_notes, summary_cells
from benchmarks.table import Table, publish

STATIC: dict[str, Build] = {
    **{f"MLP {width}": partial(mlp, (40, width, width, 10)) for width in (32, 100, 256)},
    **{f"CNN {channels}": partial(cnn1d, channels) for channels in (8, 16, 25, 32)},
}
ON_ALL_ROWS = ("MLP 32", "MLP 100", "MLP 256", "CNN 25")
GROWN = "grown from MLP 32"
CHANCE = "random choice, same recipes"


def static_rows(arm: str, folder: Path, plan: Plan, seed: int) -> list[Row]:
    """A static arm on the 3,500 rows that the grown arm trains on."""
    return [static_arm(arm, STATIC[arm], mnist1d(folder), plan, seed)]


def unsplit_rows(arm: str, folder: Path, plan: Plan, seed: int) -> list[Row]:
    """A static arm on all 4,000 rows, the held-out ones included."""
    return [static_arm(f"{arm}, 4,000 rows", STATIC[arm], mnist1d(folder).unsplit, plan, seed)]


def grown_rows(arm: str, growing: Growing, folder: Path, plan: Plan, seed: int) -> list[Row]:
    """A growing arm by itself."""
    task = mnist1d(folder)
    trained = grown_twice(STATIC["MLP 32"], task, plan, seed, growing)
    return [measured(arm, trained, task, seed, note=history_note(trained))]


def grown_and_controls(folder: Path, plan: Plan, seed: int) -> list[Row]:
    """The growing arm and what its final size and its compute buy without growth."""
    task = mnist1d(folder)
    trained = grown_twice(STATIC["MLP 32"], task, plan, seed, by_rules)
    grown = measured(GROWN, trained, task, seed, note=history_note(trained))
    uniform = partial(scaled_mlp, (1, 1), 40, 10, grown.params)
    controls = control_arms(trained, uniform, task, plan, seed)
    return [grown, *controls, equal_flops_arm("CNN 25", STATIC["CNN 25"], trained, task, plan, seed)]


def jobs(given: Options) -> list[Job]:
    """All of them, the longest first."""
    plan = Plan(steps=60) if given.quick else Plan()
    static = ("MLP 32", "CNN 25") if given.quick else tuple(STATIC)
    on_all = static[:1] if given.quick else ON_ALL_ROWS
    found = []
    for seed in given.seeds:
        found.append(Job(f"seed {seed}", partial(grown_and_controls, given.data, plan, seed)))
        found.append(Job(f"seed {seed}", partial(grown_rows, CHANCE, by_chance, given.data, plan, seed)))
        found += [Job(f"seed {seed}", partial(static_rows, arm, given.data, plan, seed)) for arm in static]
        found += [Job(f"seed {seed}", partial(unsplit_rows, arm, given.data, plan, seed)) for arm in on_all]
    return found


def table(rows: list[Row]) -> Table:
    """Rows of all arms, with the sweep over the static ones and the paired differences."""
    swept = [row for row in rows if row.arm in STATIC]
    sweep = best_of(f"best of {len(by_arm(swept))} static nets by held-out accuracy", swept)
    everything = [*rows, *sweep]
    return Table(
        name="mnist1d",
        title="MNIST-1D: grown against static, every arm with the same batches and schedule",
        columns=COLUMNS,
        cells=summary_cells(everything),
        notes=difference_notes(everything, GROWN)
        + [f"seed {r.seed}, {r.arm}: {r.note}" for r in rows if r.note],
        rows=[msgspec.to_builtins(row) for row in everything],
    )


def main() -> None:
    """Run all arms and publish the table."""
    given = options("mnist1d", "MNIST-1D: grown against static nets.")
    mnist1d(given.data)
    rows = run_jobs(jobs(given), num_workers=given.jobs)
    publish(table(rows), command=given.command, stored=not given.quick)


if __name__ == "__main__":
    main()
