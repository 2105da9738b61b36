"""What people train with beside a plain loop: low precision, averages, checkpointed activations."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from esper import Budget, Grower, held_out
from esper.errors import ConfigurationError
from esper.events import Attached, Scored
from growth.loops import (
    MLP,
    ROOMY,
    Lenient,
    Loop,
    Script,
    Stern,
    adamw,
    difference,
    evaluation,
    kinds,
    model_state,
)
from hosts import Host, host

ONE = Budget(params_ratio=None, grafts=1)


class Halved:
    """A loop in low precision, with a scaler that overflows when it is told to."""

    def __init__(self, dtype: torch.dtype, *, judge: Any = None, overflow: int | None = None) -> None:
        torch.manual_seed(0)
        self.kind, self.dtype, self.overflow = host("resnet"), dtype, overflow
        self.model = self.kind.make(0)
        self.optimizer = adamw(self.model)
        self.scaler = torch.amp.GradScaler("cpu", enabled=dtype == torch.float16, init_scale=256.0)
        self.grower = None if judge is None else self._grower(judge)
        self.losses: list[float] = []

    def _grower(self, judge: Any) -> Grower:
        return Grower(
            self.model,
            self.optimizer,
            evaluate=held_out([self.kind.batch(seed) for seed in (1000, 1001)], per_example=self.per_example),
            scaler=self.scaler,
            controller=Script(),
            judge=judge,
            budget=ROOMY,
        )

    def per_example(self, model: nn.Module, batch: Any) -> Tensor:
        with torch.autocast("cpu", dtype=self.dtype):
            return self.kind.loss(model, batch, reduction="none")

    def loss(self, batch: Any) -> Tensor:
        return self.per_example(self.model, batch).mean()

    def run(self, steps: int) -> Halved:
        for step in range(steps):
            batch = self.kind.batch(step % 6)
            self.optimizer.zero_grad()
            loss = self.loss(batch)
            burst = 1e38 if step == self.overflow else 1.0
            self.scaler.scale(loss * burst).backward()
            self.scaler.step(self.optimizer)
            self.scaler.update()
            self.losses.append(float(loss.detach()))
            if self.grower is not None:
                self.grower.step(lambda b=batch: self.loss(b))
        return self


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bfloat16", "float16"])
def test_refused_trials_leave_the_trajectory_in_low_precision(dtype: torch.dtype) -> None:
    alone, run = Halved(dtype).run(24), Halved(dtype, judge=Stern()).run(24)
    assert "Judged" in kinds(run.grower)
    assert run.losses == alone.losses
    assert not difference(model_state(alone.model), model_state(run.model))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bfloat16", "float16"])
def test_a_graft_joins_in_low_precision_and_trains_on(dtype: torch.dtype) -> None:
    run = Halved(dtype, judge=Lenient()).run(34)
    assert "Attached" in kinds(run.grower)
    assert all(torch.isfinite(p).all() for p in run.model.parameters())
    assert {p.dtype for p in run.model.parameters()} == {torch.float32}


@pytest.mark.parametrize("overflow", [3, 7, 12], ids=["sensed", "learned", "tried"])
def test_a_step_that_overflows_leaves_no_undefined_number_in_growth(overflow: int) -> None:
    run = Halved(torch.float16, judge=Lenient(), overflow=overflow).run(34)
    assert run.grower is not None
    assert run.scaler.get_scale() < 256.0
    scores = [score.score for e in run.grower.history if isinstance(e, Scored) for score in e.scores]
    assert scores
    assert all(score == score and abs(score) < float("inf") for score in scores)
    assert all(torch.isfinite(p).all() for p in run.model.parameters())


AVERAGES: dict[str, Any] = {
    "swa": {},
    "ema": {"multi_avg_fn": get_ema_multi_avg_fn(0.9)},
    "ema_with_buffers": {"multi_avg_fn": get_ema_multi_avg_fn(0.9), "use_buffers": True},
}


@pytest.mark.parametrize("name", AVERAGES)
def test_averages_of_every_kind_follow_a_graft_and_their_statistics_can_be_renewed(name: str) -> None:
    loop = Loop(host("resnet"))
    loop.average = AveragedModel(loop.model, **AVERAGES[name])
    loop.grow(judge=Lenient(), budget=ONE, averaged=(loop.average,))
    loop.run(34)
    assert loop.grower is not None
    (graft,) = [event.path for event in loop.grower.history if isinstance(event, Attached)]
    twin = loop.average.module.get_submodule(graft)
    moved = zip(twin.parameters(), loop.model.get_submodule(graft).parameters(), strict=True)
    assert all(torch.isfinite(a).all() and not torch.equal(a, b) for a, b in moved)
    loop.grower.finish()
    update_bn([loop.host.batch(seed)[0][0] for seed in range(4)], loop.average)
    loop.average.eval()
    inputs, _ = loop.host.batch(99)
    assert torch.isfinite(loop.average(*inputs)).all()
    assert set(loop.average.module.state_dict()) == set(loop.model.state_dict())


class Checkpointed(nn.Module):
    """Its inner part is computed again in the pass back; only while training, if so told."""

    def __init__(self, *, reentrant: bool, always: bool = True) -> None:
        super().__init__()
        self.first = nn.Linear(6, 8)
        self.inner = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8))
        self.last = nn.Linear(8, 3)
        self.reentrant, self.always = reentrant, always

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.relu(self.first(x))
        if self.always or self.training:
            hidden = checkpoint(self.inner, hidden, use_reentrant=self.reentrant)
        else:
            hidden = self.inner(hidden)
        return self.last(hidden)


def checkpointed(**options: Any) -> Host:
    return replace(host("mlp"), build=lambda: Checkpointed(**options))


def test_the_inner_part_of_a_checkpoint_grows() -> None:
    loop = Loop(checkpointed(reentrant=False))
    grower = loop.grow(judge=Lenient(), recipes=[MLP], sites=["inner*"], budget=ONE)
    loop.run(34)
    assert "Attached" in kinds(grower)


def test_a_reentrant_checkpoint_is_an_error_that_says_what_to_do() -> None:
    loop = Loop(checkpointed(reentrant=True))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="None of the inputs have requires_grad")
        with pytest.raises(ConfigurationError, match="use_reentrant=False"):
            loop.grow(recipes=[MLP])


def test_a_reentrant_checkpoint_in_training_only_is_one_before_anything_is_tried() -> None:
    loop = Loop(checkpointed(reentrant=True, always=False))
    grower = loop.grow(recipes=[MLP])
    with pytest.raises(ConfigurationError, match="use_reentrant=False"):
        loop.run(34)
    assert "Judged" not in kinds(grower)


def test_a_model_in_bfloat16_itself_grows_in_bfloat16() -> None:
    kind = host("mlp")
    model = copy.deepcopy(kind.make(0)).bfloat16()
    optimizer = adamw(model)
    low = replace(kind, forward=lambda m, inputs: kind.forward(m, tuple(x.bfloat16() for x in inputs)))
    grower = Grower(
        model,
        optimizer,
        evaluate=evaluation(low),
        controller=Script(),
        judge=Lenient(),
        recipes=[MLP],
        budget=ROOMY,
    )
    for step in range(24):
        optimizer.zero_grad()
        batch = low.batch(step)
        low.loss(model, batch).backward()
        optimizer.step()
        grower.step(lambda b=batch: low.loss(model, b))
    assert "Attached" in kinds(grower)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("name", ["batchnorm_cnn", "transformer"])
@pytest.mark.parametrize(
    "watching",
    [partial(FlopCounterMode, display=False), partial(torch.device, "cpu")],
    ids=["flops", "device"],
)
def test_who_watches_every_operation_does_not_hide_sites_and_blocks(
    name: str, watching: Callable[[], AbstractContextManager[Any]]
) -> None:
    loops = Loop(host(name)), Loop(host(name))
    alone = loops[0].grow()
    with watching():
        watched = loops[1].grow()
        loops[1].run(4)
    assert alone.sites() == watched.sites()
    blocks = alone._work.setup.parts.blocks
    assert blocks == watched._work.setup.parts.blocks != ()
    assert watched._work.size == alone._work.size
