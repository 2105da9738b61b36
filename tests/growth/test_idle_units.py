"""Units of the model's own layers that held-out data show to be idle go, with their share of the optimizer's state."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import esper
from esper import Budget, Recipe
from esper.controller.judge import Verdict
from esper.events import Judged, Pruned
from esper.growth.guard import Guard
from growth.loops import (
    PACE,
    Lenient,
    Loop,
    Script,
    adamw,
    difference,
    kinds,
    model_state,
    same,
    state,
    training_state,
)
from growth.test_resume import restore, stored
from hosts import Host, host
from surgery.places import outputs

PRUNING = Script(rounds=1, times=replace(PACE, prunings=2, prune_every=5))
NAMES = ("mlp", "batchnorm_cnn", "lstm", "language_model", "conv1d", "autocast", "resnet")
SOME = [pytest.param(host(name), id=name) for name in NAMES]


@pytest.fixture(autouse=True)
def _briefly_watchful(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Guard, "EVERY", 2)
    monkeypatch.setattr(Guard, "WATCH", 4)


@dataclass(frozen=True)
class Thrifty(Lenient):
    """Grafts nothing, and takes out units as long as the loss rises by less than ``most``."""

    accepts: bool = True
    most: float = 0.2

    def graft(self, *args: Any, **options: Any) -> Verdict:
        return replace(super().graft(*args, **options), accepted=False)

    def prune(self, host: Any, without: Any, **options: Any) -> Verdict:
        verdict = super().prune(host, without, **options)
        return replace(verdict, accepted=self.accepts and verdict.gain > -self.most)


def pruned(kind: Host, *, steps: int = 12, looped: dict[str, Any] | None = None, **options: Any) -> Loop:
    loop = Loop(kind, **(looped or {}))
    loop.grow(**({"controller": PRUNING, "judge": Thrifty(), "prune": "all"} | options))
    loop.until("prune")
    return loop.run(steps)


def momentum(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)


@dataclass(frozen=True)
class Halfway(Thrifty):
    """Takes out seven of twelve parts, and none of fewer."""

    asked: list[int] = field(default_factory=list)

    def prune(self, host: Any, without: Any, *, looks: int, **options: Any) -> Verdict:
        self.asked.append(looks)
        accepted = looks == (12).bit_length() and len(self.asked) % 2 == 1
        return replace(super().prune(host, without, looks=looks, **options), accepted=accepted)


@dataclass(frozen=True)
class Exact(Thrifty):
    """Takes out what changes no loss at all."""

    def prune(self, host: Any, without: Any, **options: Any) -> Verdict:
        return replace(super().prune(host, without, **options), accepted=bool((host == without).all()))


@pytest.mark.parametrize("kind", SOME)
@pytest.mark.parametrize("optimizer", [adamw, momentum])
def test_what_is_left_trains_on_with_its_share_of_everything(kind: Host, optimizer: Any) -> None:
    loop = pruned(kind, looped={"averaged": True, "optimizer": optimizer})
    events = [event for event in loop.grower.history if isinstance(event, Pruned)]
    assert events
    params = sum(p.numel() for p in loop.model.parameters())
    assert (
        params
        == loop.grower.size.params
        == events[-1].total_params
        == loop.grower.sites().params - sum(event.params for event in events)
    )
    held = [p for group in loop.optimizer.param_groups for p in group["params"]]
    assert set(map(id, held)) == set(map(id, loop.model.parameters()))
    for parameter, own in loop.optimizer.state.items():
        assert all(
            value.shape in ((), parameter.shape) for value in own.values() if isinstance(value, Tensor)
        )
    twin = loop.average.module
    assert [p.shape for p in twin.parameters()] == [p.shape for p in loop.model.parameters()]
    if all(event.what == "units" for event in events):
        assert [type(m) for m in loop.model.modules()] == [type(m) for m in kind.make(0).modules()]
    loop.run(3)
    assert loop.grower.finish() is loop.model


@pytest.mark.parametrize("kind", SOME)
def test_refused_prunings_of_units_leave_the_trajectory_of_a_run_without(kind: Host) -> None:
    tried = pruned(kind, judge=Thrifty(accepts=False))
    without = Loop(kind)
    without.grow(controller=PRUNING, judge=Thrifty(), prune="nothing")
    without.run(len(tried.losses))
    judged = [e.candidate for e in tried.grower.history if isinstance(e, Judged) and e.kind == "prune"]
    assert sum("units" in candidate for candidate in judged) == 2
    assert not difference(state(without), state(tried))


def test_idle_units_go_and_the_others_keep_their_values_and_state() -> None:
    loop = Loop(host("mlp"))
    grower = loop.grow(controller=PRUNING, judge=Exact(), prune="all", recipes=[])
    idle = torch.tensor([0, 1, 2])
    loop.grower = None
    while "Pruned" not in kinds(grower) and len(loop.losses) < 40:
        loop.run(1)
        with torch.no_grad():
            loop.model[2].weight[:, idle] = 0
        before = copy.deepcopy(loop.optimizer.state_dict()["state"])
        weight, wanted = loop.model[0].weight.detach().clone(), outputs(loop.host, loop.model)
        grower.step(lambda: loop.host.loss(loop.model, loop.host.batch(0)))
    event = next(event for event in grower.history if isinstance(event, Pruned))
    gone = next(op["units"] for op in grower.record if op["op"] == "prune")
    assert (event.where, event.num_removed, event.num_units, event.increase) == ("0", len(gone), 16, 0.0)
    assert set(idle.tolist()) <= set(gone)
    left = [unit for unit in range(16) if unit not in gone]
    assert same(loop.model[0].weight.detach(), weight[left])
    torch.testing.assert_close(outputs(loop.host, loop.model), wanted)
    after = loop.optimizer.state[loop.model[0].weight]
    assert same(after["exp_avg_sq"], before[0]["exp_avg_sq"][left])
    assert float(after["step"]) == float(before[0]["step"]) == len(loop.losses)


def test_a_run_that_was_interrupted_after_units_went_goes_on_as_if_it_had_not_been() -> None:
    def make() -> Loop:
        loop = Loop(host("batchnorm_cnn"), averaged=True)
        loop.grow(controller=PRUNING, judge=Halfway(), prune="all")
        return loop

    whole = make()
    whole.until("prune")
    for _ in range(12):
        whole.run_at_random(1)
        if "Pruned" in kinds(whole.grower):
            break
    assert whole.grower.phase == "prune"
    assert sum(event.num_removed for event in whole.grower.history if isinstance(event, Pruned)) == 7
    tree, done = copy.deepcopy(stored(whole)), len(whole.losses)
    whole.run_at_random(12)
    again = restore(make(), tree).run_at_random(12)
    assert again.losses == whole.losses[done:]
    assert again.grower.history == whole.grower.history
    assert not difference(training_state(whole), training_state(again))


@pytest.mark.parametrize("kind", SOME)
def test_a_smaller_model_is_loaded_into_a_fresh_instance(kind: Host, tmp_path: Path) -> None:
    loop = pruned(kind)
    loop.grower.finish()
    esper.save(tmp_path, loop.model, loop.grower)
    fresh = esper.load(tmp_path, kind.make(1))
    assert same(model_state(loop.model)["tensors"], model_state(fresh)["tensors"])
    assert same(outputs(kind, loop.model), outputs(kind, fresh))


def test_units_go_under_a_widening_of_their_own_block_which_then_becomes_a_part_of_it(tmp_path: Path) -> None:
    loop = Loop(host("mlp"), averaged=True)
    loop.grow(
        controller=PRUNING,
        judge=Generous(),
        prune="all",
        recipes=[Recipe.of("widen")],
        budget=Budget(params_ratio=None, grafts=1),
    )
    for _ in range(60):
        loop.run(1)
        if "Pruned" in kinds(loop.grower):
            break
    assert [e.what for e in loop.grower.history if isinstance(e, Pruned)] == ["units"]
    loop.run(2)
    before = [outputs(loop.host, model) for model in (loop.model, loop.average.module)]
    loop.grower.finish()
    torch.testing.assert_close(
        [outputs(loop.host, model) for model in (loop.model, loop.average.module)], before
    )
    assert [type(m) for m in loop.model.modules()] == [type(m) for m in loop.host.make(0).modules()]
    assert loop.grower.size.params == sum(p.numel() for p in loop.model.parameters())
    esper.save(tmp_path, loop.model, loop.grower)
    assert same(outputs(loop.host, esper.load(tmp_path, loop.host.make(1))), outputs(loop.host, loop.model))


@dataclass(frozen=True)
class Generous(Lenient):
    """Accepts every graft, lets none go, and takes out half of the units."""

    asked: list[int] = field(default_factory=list)

    def prune(self, *args: Any, looks: int, **options: Any) -> Verdict:
        self.asked.append(looks)
        return replace(
            super().prune(*args, looks=looks, **options), accepted=looks > 1 and len(self.asked) == 2
        )
