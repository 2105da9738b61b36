"""Fashion-MNIST, 12,000 images: grown from an MLP of 8 units and from a tiny CNN, against sweeps."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import msgspec

from benchmarks.arms import Build, Plan, Row, control_arms, grow, history_note, measured, static_arm
from benchmarks.command import Options, options
from benchmarks.data import fashion
from benchmarks.growers import large_catalogue, whole_catalogue
from benchmarks.networks import image_cnn, image_mlp, num_params
from benchmarks.pool import Job, run_jobs
from benchmarks.summary import COLUMNS, best_of, difference_notes, summary_cells
from benchmarks.table import Table, publish

STARTS: dict[str, Build] = {"MLP 8": partial(image_mlp, 8), "CNN 4": partial(image_cnn, 4)}
LARGE = "grown from MLP 8, size at a quarter of the price"
SWEEPS: dict[str, dict[str, Build]] = {
    "MLP 8": {
        f"MLP {'-'.join(map(str, h))}": partial(image_mlp, *h)
        for h in ((8,), (32,), (128,), (32, 32), (128, 64))
    },
    "CNN 4": {
        f"CNN {c}×{d}": partial(image_cnn, c, depth=d) for c, d in ((4, 2), (8, 2), (16, 2), (8, 3), (16, 3))
    },
}


def grown_rows(start: str, folder: Path, plan: Plan, seed: int) -> list[Row]:
    """A grown arm, and what its size and its FLOPs buy without growth."""
    task = fashion(folder)
    trained = grow(STARTS[start], task.split, plan, seed, growing=whole_catalogue, counted=True)
    wider = same_family(start, num_params(trained.model))
    controls = control_arms(trained, wider, task, plan, seed)
    return [
        measured(grown_from(start), trained, task, seed, note=history_note(trained)),
        *(msgspec.structs.replace(row, arm=f"{start}: {row.arm}") for row in controls),
    ]


def large_rows(folder: Path, plan: Plan, seed: int) -> list[Row]:
    """The MLP again, grown for accuracy rather than for its price."""
    task = fashion(folder)
    trained = grow(STARTS["MLP 8"], task.split, plan, seed, growing=large_catalogue, counted=True)
    return [measured(LARGE, trained, task, seed, note=history_note(trained))]


def static_rows(start: str, arm: str, folder: Path, plan: Plan, seed: int) -> list[Row]:
    """One net of a sweep."""
    return [static_arm(arm, SWEEPS[start][arm], fashion(folder), plan, seed)]


def grown_from(start: str) -> str:
    """The name of a grown arm."""
    return f"grown from {start}"


def same_family(start: str, params: int) -> Build:
    """The start at the width that comes nearest to ``params`` parameters."""
    family = image_mlp if start.startswith("MLP") else image_cnn
    return partial(family, min(range(1, 200), key=lambda width: abs(num_params(family(width)) - params)))


def table(rows: list[Row]) -> Table:
    """All arms, and each grown one against the best of its sweep."""
    notes, best = [], []
    for start, sweep in SWEEPS.items():
        best += best_of(
            f"{start}: best of {len(sweep)} by held-out accuracy", [r for r in rows if r.arm in sweep]
        )
    everything = [*rows, *best]
    for start in STARTS:
        family = [r for r in everything if start in r.arm]
        notes += difference_notes([r for r in family if r.arm != LARGE], grown_from(start))
    notes += difference_notes(
        [r for r in everything if "MLP" in r.arm and r.arm != grown_from("MLP 8")], LARGE
    )
    return Table(
        name="fashion",
        title="Fashion-MNIST, 12,000 images (2,000 of them held out), 10,000 test images",
        columns=COLUMNS,
        cells=summary_cells(everything),
        notes=notes + [f"seed {row.seed}, {row.arm}: {row.note}" for row in rows if row.note],
        rows=[msgspec.to_builtins(row) for row in everything],
    )


def jobs(given: Options) -> list[Job]:
    """The grown runs first, since they take longest."""
    if given.quick:
        return [
            Job("quick", partial(static_rows, s, next(iter(SWEEPS[s])), given.data, Plan(10), 0))
            for s in STARTS
        ]
    plan, found = Plan(steps=3_000), []
    for seed in given.seeds:
        found += [Job(f"seed {seed}", partial(grown_rows, start, given.data, plan, seed)) for start in STARTS]
        found.append(Job(f"seed {seed}", partial(large_rows, given.data, plan, seed)))
        found += [
            Job(f"seed {seed}", partial(static_rows, s, arm, given.data, plan, seed))
            for s in STARTS
            for arm in SWEEPS[s]
        ]
    return found


def main() -> None:
    """Run all arms and publish the table."""
    given = options("fashion", "Fashion-MNIST: grown against sweeps of width and depth.")
    fashion(given.data)
    rows = run_jobs(jobs(given), num_workers=given.jobs)
    publish(table(rows), command=given.command, stored=not given.quick)


if __name__ == "__main__":
    main()
