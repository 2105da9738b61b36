"""Pruning: is what is left of a wide net as good, and is it better than other nets of its size?

A wide MLP trains without growth; from 60 % of the run on, units that the judge can do without go, four times. Against
it: the wide net as it was, the same small sizes from scratch, and as many units taken out at the same steps in other
orders, unjudged: at random, by the magnitude of weights, and in the same order without the others taking over.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import msgspec
import torch
from torch import Tensor, nn

from benchmarks.arms import (
    Build,
    Plan,
    Row,
    Session,
    Trained,
    batches,
    grow,
    measured,
    prepared,
    static_arm,
    training_step,
)
from benchmarks.command import Options, options
from benchmarks.data import Task, digits, mnist1d
from benchmarks.growers import evaluation
from benchmarks.networks import mlp
from benchmarks.pool import Job, run_jobs
from benchmarks.summary import COLUMNS, difference_notes, summary_cells
from benchmarks.table import Table, publish
from esper import Grower, Judge
from esper.growth.slicing import hand_over
from esper.signals.redundancy import Moments, elimination
from esper.surgery.block import Block
from esper.surgery.shrinking import Removal, loudness

WIDTH = 64
MARGINS = (0.01, 0.05)
NUM_COLUMNS = 6
"""Without FLOPs, which are not counted here, and seconds."""
PLANS = {"digits": Plan(steps=1_000), "mnist1d": Plan(steps=2_000)}

Chosen = Callable[[Session, Block, int], Tensor]


@dataclass(frozen=True)
class Removed:
    """How many units went from a block, and at which step."""

    step: int
    block: Block
    count: int


def by_judge(margin: float, session: Session) -> Grower:
    """Nothing grows; whatever can be pruned is."""
    return Grower(
        session.model,
        session.optimizer,
        evaluate=evaluation(session.held_out, session.plan.batch),
        total_steps=session.plan.steps,
        scheduler=session.scheduler,
        recipes=[],
        prune="all",
        judge=Judge(margin=margin),
        seed=session.seed,
    )


def removed(trained: Trained) -> list[Removed]:
    """What the judge let go, in order."""
    assert trained.grower is not None
    steps = (event.step for event in trained.grower.history if type(event).__name__ == "Pruned")
    ops = (op for op in trained.grower.record if op["op"] == "prune")
    return [
        Removed(step, msgspec.convert(op["block"], Block), len(op["units"]))
        for step, op in zip(steps, ops, strict=True)
    ]


def at_random(session: Session, block: Block, count: int) -> Tensor:
    """``count`` units by lot."""
    generator = torch.Generator().manual_seed(session.seed)
    return torch.randperm(block.width, generator=generator)[:count]


def by_magnitude(session: Session, block: Block, count: int) -> Tensor:
    """Those with the smallest product of the norms of incoming and outgoing weights."""
    incoming = (
        session.model.get_submodule(block.producers[0]).get_parameter("weight").detach().double().norm(dim=1)
    )
    return (incoming * loudness(session.model, block)).argsort()[:count]


def by_redundancy(session: Session, block: Block, count: int) -> Tensor:
    """Esper's order, on the held-out rows here; without the others taking over."""
    moments = Moments(session.model, [block])
    with moments.watching(), torch.no_grad():
        session.model(session.held_out.x)
    parts = torch.arange(block.width)[:, None]
    order = elimination(moments.of(block), loudness(session.model, block), parts)
    return torch.tensor([part for _, part in order[:count]])


def train_with(
    build: Build, task: Task, plan: Plan, seed: int, *, changes: list[Removed], chosen: Chosen
) -> Trained:
    """Train as the pruned arm did, with as many units gone at the same steps."""
    torch.manual_seed(seed)
    session = prepared(build(), task.split, plan, seed)
    start = time.perf_counter()
    for step, (x, y) in enumerate(batches(task.split.train, plan, seed), start=1):
        training_step(session, x, y)
        for change in (change for change in changes if change.step == step):
            units = chosen(session, change.block, change.count)
            hand_over(session.model, Removal(change.block, units), session.optimizer)
    return Trained(session.model, 0, time.perf_counter() - start)


def sizes_of(model: nn.Module) -> tuple[int, ...]:
    """Sizes of a chain of linear layers, inputs first."""
    linear = [layer for layer in model.modules() if isinstance(layer, nn.Linear)]
    return (linear[0].in_features, *(layer.out_features for layer in linear))


def seed_rows(name: str, task: Task, plan: Plan, seed: int) -> list[Row]:
    """One task with one seed: the wide net, and for each margin the pruned one with its controls."""
    inputs = task.split.train.x.shape[1]
    build = partial(mlp, (inputs, WIDTH, WIDTH, 10))
    rows = [static_arm("wide", build, task, plan, seed)]
    for margin in MARGINS:
        trained = grow(build, task.split, plan, seed, growing=partial(by_judge, margin))
        rows += _compared(margin, trained, build, task, plan, seed)
    return [msgspec.structs.replace(row, arm=f"{name}: {row.arm}") for row in rows]


def _compared(
    margin: float, trained: Trained, build: Build, task: Task, plan: Plan, seed: int
) -> Iterator[Row]:
    sizes, changes = sizes_of(trained.model), removed(trained)
    arm = f"margin {margin}"
    yield measured(f"{arm}: pruned", trained, task, seed, note="-".join(map(str, sizes)))
    yield static_arm(f"{arm}: same sizes from scratch", partial(mlp, sizes), task, plan, seed)
    orders: dict[str, Chosen] = {
        "same order, nothing taken over": by_redundancy,
        "by magnitude": by_magnitude,
        "at random": at_random,
    }
    for order, chosen in orders.items():
        other = train_with(build, task, plan, seed, changes=changes, chosen=chosen)
        yield measured(f"{arm}: {order}", other, task, seed)


def table(rows: list[Row]) -> Table:
    """Every arm of every task, and what the pruned net is ahead of each of its controls."""
    return Table(
        name="prune",
        title="Pruning a wide MLP: what the judge lets go, against other nets of that size",
        columns=COLUMNS[:NUM_COLUMNS],
        cells=[cells[:NUM_COLUMNS] for cells in summary_cells(rows)],
        notes=[note for name in PLANS for margin in MARGINS for note in _notes(rows, name, margin)],
        rows=[msgspec.to_builtins(row) for row in rows],
    )


def _notes(rows: list[Row], name: str, margin: float) -> list[str]:
    arm = f"{name}: margin {margin}"
    own = [row for row in rows if row.arm.startswith((arm, f"{name}: wide"))]
    sizes = ", ".join(row.note for row in own if row.arm == f"{arm}: pruned")
    return [f"{arm}: {sizes}", *difference_notes(own, f"{arm}: pruned")]


def jobs(given: Options) -> list[Job]:
    """One a task and seed."""
    tasks: dict[str, Any] = {"digits": digits, "mnist1d": lambda _: mnist1d(given.data)}
    plans = {name: replace(plan, steps=60) if given.quick else plan for name, plan in PLANS.items()}
    return [
        Job(f"{name} {seed}", partial(seed_rows, name, tasks[name](seed), plans[name], seed))
        for seed in given.seeds
        for name in PLANS
    ]


def main() -> None:
    """Run and publish."""
    given = options("prune", __doc__.splitlines()[0])
    publish(
        table(run_jobs(jobs(given), num_workers=given.jobs)), command=given.command, stored=not given.quick
    )


if __name__ == "__main__":
    main()
