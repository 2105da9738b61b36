"""Growth by widening alone: the same layers, larger, against a sweep of their sizes at equal FLOPs.

Every arm of a seed may spend the FLOPs that the grown run spent, search included; a net of the sweep that is cheaper
trains longer. The control takes the same candidates to trial with fresh values instead of those learned in the shadow.
Runs are short (2,500 steps on digits, 2,000 on diamonds, 1,000 on images), and growth closes at 60 % of them. Starts,
ratios, price and steps were chosen on seeds 0 and 1.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from unittest import mock

import msgspec
import numpy as np
import torch
from scipy import stats
from torch import nn

from benchmarks.arms import (
    Build,
    Plan,
    Row,
    Trained,
    equal_flops_arm,
    grow,
    history_note,
    measured,
    static_arm,
)
from benchmarks.command import Options, options
from benchmarks.data import Task, diamonds, digits, fashion
from benchmarks.growers import round_by_round
from benchmarks.networks import image_cnn, image_mlp, mlp, reinitialised
from benchmarks.pool import Job, run_jobs
from benchmarks.summary import COLUMNS, best_of, by_arm, summary_cells
from benchmarks.table import Table, publish
from esper import Recipe
from esper.blueprints import build
from esper.controller.candidate import Candidate
from esper.growth.work import Work
from esper.surgery.blocks import find_blocks
from esper.surgery.graft import Graft, attach
from esper.surgery.sites import discover
from esper.surgery.trace import trace
from esper.surgery.widening import widen, widenable

TWICE = Recipe.of("widen", ratio=1.0)
GROWN, CHANCE, SCRATCH = "grown by widening", "random fan-in", "its final sizes from scratch, equal FLOPs"
ROUNDS, WARM_UP = 400, 20


@dataclass(frozen=True)
class Case:
    """A task with its start and the sizes that a person would sweep over."""

    task: Callable[[Path, int], Task]
    start: Build
    sweep: dict[str, Build]
    plan: Plan


def _mlps(inputs: int, widths: tuple[int, ...]) -> dict[str, Build]:
    return {f"MLP {w}-{w}": partial(mlp, (inputs, w, w, 10)) for w in widths}


WIDTHS = (16, 32, 64)
CASES = {
    "digits": Case(
        lambda _, seed: digits(seed), partial(mlp, (64, 8, 8, 10)), _mlps(64, WIDTHS), Plan(2_500)
    ),
    "diamonds": Case(diamonds, partial(mlp, (9, 8, 8, 10)), _mlps(9, WIDTHS), Plan(2_000)),
    "fashion": Case(
        lambda folder, _: fashion(folder),
        partial(image_cnn, 2),
        {f"CNN {c}-{2 * c}": partial(image_cnn, c) for c in (4, 8, 16)},
        Plan(1_000),
    ),
}


def rows_of(name: str, folder: Path, plan: Plan, seed: int) -> list[Row]:
    """All arms of one seed, named after their case."""
    case = CASES[name]
    task = case.task(folder, seed)
    grown = _grown(case, task, plan, seed)
    with mock.patch.object(Work, "start_of", _fresh):
        control = _grown(case, task, plan, seed)
    rows = [
        measured(GROWN, grown, task, seed, note=f"{sizes(grown.model)}; {history_note(grown)}"),
        measured(CHANCE, control, task, seed, note=sizes(control.model)),
        static_arm("static start, equal steps", case.start, task, plan, seed),
        msgspec.structs.replace(
            equal_flops_arm("scratch", partial(reinitialised, grown.model), grown, task, plan, seed),
            arm=SCRATCH,
        ),
        *(equal_flops_arm(arm, build, grown, task, plan, seed) for arm, build in case.sweep.items()),
    ]
    return [msgspec.structs.replace(row, arm=f"{name}: {row.arm}") for row in rows]


def _grown(case: Case, task: Task, plan: Plan, seed: int) -> Trained:
    return grow(case.start, task.split, plan, seed, growing=round_by_round, counted=True)


def _fresh(work: Work, candidate: Candidate, _: nn.Module) -> Graft:
    """A newborn graft without what the shadow has learned."""
    return work.birth(candidate)


def sizes(model: nn.Module) -> str:
    """The widths of the hidden layers."""
    layers = [m for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    return "-".join(str(m.weight.shape[0]) for m in layers[:-1])


def table(rows: list[Row], *, rounds: int = ROUNDS) -> Table:
    """All arms, and the grown one against the best of its sweep, with a 95 % interval."""
    best, notes = [], []
    for name, case in CASES.items():
        swept = [row for row in rows if row.arm in {f"{name}: {arm}, equal FLOPs" for arm in case.sweep}]
        best += (
            best_of(f"{name}: best of {len(case.sweep)} sizes by held-out accuracy", swept) if swept else []
        )
    everything = [*rows, *best]
    for name in CASES:
        notes += _differences(name, [row for row in everything if row.arm.startswith(f"{name}:")])
    notes += [f"seed {row.seed}, {row.arm}: {row.note}" for row in rows if row.note and GROWN in row.arm]
    return Table(
        name="widen",
        title="Widening alone: grown sizes against a sweep of sizes, every net with the FLOPs of the grown run",
        columns=COLUMNS,
        cells=summary_cells(everything),
        notes=notes + latency_notes(rounds),
        rows=[msgspec.to_builtins(row) for row in everything],
    )


def _differences(name: str, rows: list[Row]) -> list[str]:
    accuracy = {arm: {row.seed: row.test_accuracy for row in group} for arm, group in by_arm(rows).items()}
    grown = accuracy.pop(f"{name}: {GROWN}", {})
    return [
        f"{name}: {GROWN} − {arm.partition(': ')[2]}: {interval(grown, own)}" for arm, own in accuracy.items()
    ]


def interval(first: dict[int, float], second: dict[int, float]) -> str:
    """Mean paired difference in points, with its 95 % interval (nan for a single seed)."""
    differences = [100 * (first[seed] - second[seed]) for seed in sorted(first.keys() & second.keys())]
    mean = float(np.mean(differences))
    known = len(differences) > 1
    half = float(stats.t.ppf(0.975, len(differences) - 1) * stats.sem(differences)) if known else float("nan")
    return (
        f"{mean:+.2f} points (95 % interval {mean - half:+.2f} to {mean + half:+.2f}), n = {len(differences)}"
    )


def latency_notes(rounds: int) -> list[str]:
    """What a folded net costs against one that was written down with the same sizes."""
    return [_against_hand_built(kind, rounds) for kind in ("MLP", "CNN")]


def _against_hand_built(kind: str, rounds: int) -> str:
    folded, twin, x = _pair(kind)
    times: tuple[list[float], list[float]] = ([], [])
    with torch.no_grad():
        for number in range(2 * (rounds + WARM_UP)):
            which = number % 2
            start = time.perf_counter()
            (folded, twin)[which](x)
            times[which].append(time.perf_counter() - start)
    ratios = np.array(times[0][WARM_UP:]) / np.array(times[1][WARM_UP:])
    low, high = np.percentile(ratios, [25, 75])
    memory = _bytes(folded) / _bytes(twin)
    return (
        f"after folding, {kind} {sizes(folded)}: latency {median(ratios.tolist()):.3f} times that of a hand-built net "
        f"(quartiles {low:.3f} to {high:.3f}, batch of {len(x)}), weights and buffers {memory:.2f} times"
    )


def _pair(kind: str) -> tuple[nn.Module, nn.Module, torch.Tensor]:
    """A net that was made twice as wide and folded, one with the same sizes written by hand, and a batch."""
    starts: dict[str, tuple[Build, Build]] = {
        "MLP": (partial(image_mlp, 128, 128), partial(image_mlp, 256, 256)),
        "CNN": (partial(image_cnn, 16), partial(image_cnn, 32)),
    }
    start, by_hand = starts[kind]
    x, model = torch.randn(64, 1, 28, 28), start()
    seen = trace(model, lambda: model(x))
    offered = discover(seen)
    blocks = find_blocks(seen, (site for site in offered.offers if site.is_span))
    for site in (site for site in offered.with_blocks(blocks).sites if site.block is not None):
        attach(model, Graft(build(TWICE, site, seed=0), site, TWICE))
    widen(model, widenable(model))
    twin = by_hand()
    twin.load_state_dict(model.state_dict())
    return model.eval(), twin.eval(), x


def _bytes(model: nn.Module) -> int:
    return sum(t.numel() * t.element_size() for t in (*model.parameters(), *model.buffers()))


def jobs(given: Options) -> list[Job]:
    """One seed of one case each."""
    if given.quick:
        return [Job("quick", partial(rows_of, "digits", given.data, Plan(10), 0))]
    return [
        Job(f"{name}, seed {seed}", partial(rows_of, name, given.data, CASES[name].plan, seed))
        for seed in given.seeds
        for name in CASES
    ]


def main() -> None:
    """Run all arms and publish the table."""
    given = options("widen", "Growth by widening alone, against a sweep of sizes.")
    rows = run_jobs(jobs(given), num_workers=given.jobs)
    publish(table(rows, rounds=5 if given.quick else ROUNDS), command=given.command, stored=not given.quick)


if __name__ == "__main__":
    main()
