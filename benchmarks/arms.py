"""One way of training for every arm of every comparison, and the row that an arm returns.

The training function sees ``Task.split`` only. ``measured`` is the one function that opens the test rows; it
is called once per arm, after training has ended and the model has been folded.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.data import Rows, Split, Task
from benchmarks.meter import Meter, flops_of
from benchmarks.networks import num_params, reinitialised
from esper.events import AnyEvent, Attached, Cut

if TYPE_CHECKING:
    from esper import Grower

Build = Callable[[], nn.Module]
NOTHING = "nothing kept"


@dataclass(frozen=True)
class Plan:
    """The schedule that all arms share: AdamW, constant, then from half-way a cosine down to zero."""

    steps: int = 6_000
    batch: int = 100
    lr: float = 2e-3
    weight_decay: float = 0.01

    def factor(self, step: int) -> float:
        """Learning rate at ``step`` (from 0) over the initial one."""
        return 0.5 * (1 + math.cos(math.pi * max(0.0, 2 * step / self.steps - 1)))


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """What one arm came to with one seed. ``flops`` are those of the whole training, search included."""

    arm: str
    seed: int
    test_accuracy: float
    test_loss: float
    held_out_accuracy: float | None
    params: int
    flops: int
    seconds: float
    note: str = ""


@dataclass(frozen=True)
class Session:
    """What a Grower is built from. The test rows are not among it."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LRScheduler
    held_out: Rows
    plan: Plan
    seed: int


Growing = Callable[[Session], "Grower"]


@dataclass(frozen=True)
class Trained:
    """A trained model, what it cost, and the Grower that shaped it, if there was one."""

    model: nn.Module
    flops: int
    seconds: float
    grower: Grower | None = None


def batches(rows: Rows, plan: Plan, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """``plan.steps`` batches; their order depends on ``seed`` and the number of rows alone."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.empty(0, dtype=torch.int64)
    for _ in range(plan.steps):
        if len(order) < plan.batch:
            order = torch.randperm(len(rows), generator=generator)
        picked, order = order[: plan.batch], order[plan.batch :]
        yield rows.x[picked], rows.y[picked]


def prepared(model: nn.Module, split: Split, plan: Plan, seed: int) -> Session:
    """Optimizer and schedule for ``model``, as every arm has them."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=plan.lr, weight_decay=plan.weight_decay)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, plan.factor)
    return Session(model, optimizer, scheduler, split.held_out, plan, seed)


def train(build: Build, split: Split, plan: Plan, seed: int) -> Trained:
    """Build under ``seed`` and train without growth. Every step costs what the first one costs."""
    torch.manual_seed(seed)
    session = prepared(build(), split, plan, seed)
    flops = plan.steps * step_flops(session.model, split.train.part(0, plan.batch))
    start = time.perf_counter()
    for x, y in batches(split.train, plan, seed):
        training_step(session, x, y)
    return Trained(session.model, flops, time.perf_counter() - start)


def grow(
    build: Build, split: Split, plan: Plan, seed: int, *, growing: Growing, counted: bool = False
) -> Trained:
    """The same with a Grower. ``counted`` counts every operation, the Grower's included, and takes longer."""
    torch.manual_seed(seed)
    session = prepared(build(), split, plan, seed)
    grower = growing(session)
    meter = Meter()
    counting: AbstractContextManager[Any] = meter if counted else nullcontext()
    start = time.perf_counter()
    for x, y in batches(split.train, plan, seed):
        with counting:
            training_step(session, x, y)
            grower.step(partial(loss_of, session.model, x, y))
    model = grower.finish()
    return Trained(model, meter.flops, time.perf_counter() - start, grower)


def loss_of(model: Callable[[Tensor], Tensor], x: Tensor, y: Tensor) -> Tensor:
    """Mean cross-entropy, the loss of every arm."""
    return F.cross_entropy(model(x), y)


def training_step(session: Session, x: Tensor, y: Tensor) -> None:
    """One step of optimizer and schedule."""
    session.optimizer.zero_grad()
    loss_of(session.model, x, y).backward()
    session.optimizer.step()
    session.scheduler.step()


def step_flops(model: nn.Module, batch: Rows) -> int:
    """FLOPs of one forward and backward pass; the model is left alone."""
    twin = copy.deepcopy(model)
    state = torch.get_rng_state()
    flops = flops_of(lambda: loss_of(twin, batch.x, batch.y).backward())
    torch.set_rng_state(state)
    return flops


@torch.no_grad()
def scores(model: nn.Module, rows: Rows) -> tuple[float, float]:
    """Accuracy and mean cross-entropy in eval mode."""
    model.eval()
    logits = torch.cat([model(x) for x in torch.split(rows.x, 1_000)])
    return (logits.argmax(1) == rows.y).float().mean().item(), F.cross_entropy(logits, rows.y).item()


def measured(arm: str, trained: Trained, task: Task, seed: int, *, note: str = "") -> Row:
    """The row of a trained model. The one place where the test rows are read."""
    accuracy, loss = scores(trained.model, task.test)
    held_out = scores(trained.model, task.split.held_out)[0] if len(task.split.held_out) else None
    return Row(
        arm=arm,
        seed=seed,
        test_accuracy=accuracy,
        test_loss=loss,
        held_out_accuracy=held_out,
        params=num_params(trained.model),
        flops=trained.flops,
        seconds=trained.seconds,
        note=note,
    )


def static_arm(arm: str, build: Build, task: Task, plan: Plan, seed: int) -> Row:
    """Train without growth, and measure."""
    return measured(arm, train(build, task.split, plan, seed), task, seed)


def grown_twice(build: Build, task: Task, plan: Plan, seed: int, growing: Growing) -> Trained:
    """Grow with the count switched off, for the time, and again with it on, for the FLOPs.

    Raises:
        RuntimeError: the two came to different weights, so that the count is not that of the timed run.
    """
    timed = grow(build, task.split, plan, seed, growing=growing)
    counted = grow(build, task.split, plan, seed, growing=growing, counted=True)
    pairs = zip(timed.model.parameters(), counted.model.parameters(), strict=True)
    if not all(torch.equal(first, second) for first, second in pairs):
        raise RuntimeError("counting changed the run: it is not deterministic")
    return replace(timed, flops=counted.flops)


def equal_flops_arm(arm: str, build: Build, grown: Trained, task: Task, plan: Plan, seed: int) -> Row:
    """A static arm that trains as long as the FLOPs of ``grown`` allow, on a stretched schedule."""
    cost = step_flops(build(), task.split.train.part(0, plan.batch))
    longer = replace(plan, steps=round(grown.flops / cost))
    return static_arm(f"{arm}, equal FLOPs", build, task, longer, seed)


def control_arms(grown: Trained, uniform: Build, task: Task, plan: Plan, seed: int) -> list[Row]:
    """The final architecture from scratch and a uniform net, each at equal steps and at equal FLOPs."""
    rows = []
    builds: dict[str, Build] = {
        "final architecture from scratch": partial(reinitialised, grown.model),
        "uniform": uniform,
    }
    for arm, build in builds.items():
        rows.append(static_arm(f"{arm}, equal steps", build, task, plan, seed))
        rows.append(equal_flops_arm(arm, build, grown, task, plan, seed))
    return rows


def history_note(trained: Trained) -> str:
    """What was kept, in one line: candidates in order of attachment, and cuts."""
    assert trained.grower is not None
    kept = [_kept(event) for event in trained.grower.history]
    return "; ".join(text for text in kept if text) or NOTHING


def _kept(event: AnyEvent) -> str:
    match event:
        case Attached():
            return f"{event.candidate} @{event.step}"
        case Cut():
            return f"cut {event.site} @{event.step}"
        case _:
            return ""
