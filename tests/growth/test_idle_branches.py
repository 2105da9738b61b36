"""Residual branches that add nothing of use become the identity, in the model and in all that moves along."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import esper
from esper.events import Judged, Pruned
from esper.surgery.bypass import Form
from growth.loops import Loop, difference, kinds, model_state, same, state, training_state
from growth.test_idle_units import PRUNING, Exact, Thrifty
from growth.test_resume import restore, stored
from hosts import Host, host
from surgery.places import outputs


def silent(kind: Host, *names: str) -> Host:
    """The host with these layers giving nothing, whatever is learnt: branches that add nothing."""

    def build() -> nn.Module:
        model = kind.build()
        for name in names:
            for parameter in model.get_submodule(name).parameters():
                nn.init.zeros_(parameter).requires_grad_(False)
        return model

    return replace(kind, build=build)


def pruned(kind: Host, *, judge: Any, prune: str = "all") -> Loop:
    loop = Loop(kind, averaged=True)
    loop.grow(controller=PRUNING, judge=judge, prune=prune, recipes=[])
    return loop.run(14)


IDLE = silent(host("resnet"), "blocks.1.bn2")


def test_a_branch_that_adds_nothing_becomes_the_identity() -> None:
    loop = Loop(IDLE, averaged=True)
    params = sum(p.numel() for p in loop.model.parameters())
    branch = sum(p.numel() for p in loop.model.blocks[1].parameters())
    grower = loop.grow(controller=PRUNING, judge=Exact(), prune="all", recipes=[])
    macs = grower.size.macs
    for _ in range(14):
        before = outputs(loop.host, loop.model)
        loop.run(1)
        if "Pruned" in kinds(grower):
            break
    event = next(e for e in grower.history if isinstance(e, Pruned) and e.what == "branch")
    assert (event.where, event.params, event.increase) == ("blocks.1", branch, 0.0)
    assert type(loop.model.blocks[1]) is type(loop.average.module.blocks[1]) is nn.Identity
    assert type(loop.model.blocks[0]) is not nn.Identity
    assert before.shape == outputs(loop.host, loop.model).shape
    left = {id(p) for p in loop.model.parameters()}
    held = [p for group in loop.optimizer.param_groups for p in group["params"]]
    assert {id(p) for p in held} == left
    assert sum(p.numel() for p in loop.model.parameters()) <= params - branch
    assert grower.size.macs < macs


def test_refused_branches_leave_the_trajectory_of_a_run_without() -> None:
    tried = pruned(IDLE, judge=Thrifty(accepts=False))
    without = pruned(IDLE, judge=Thrifty(), prune="nothing")
    names = [e.candidate for e in tried.grower.history if isinstance(e, Judged) and e.kind == "prune"]
    assert {"prune branch blocks.0", "prune branch blocks.1"} <= set(names)
    assert not difference(state(without), state(tried))


def test_a_model_without_its_branch_is_loaded_and_resumed(tmp_path: Path) -> None:
    def make() -> Loop:
        loop = Loop(IDLE, averaged=True)
        loop.grow(controller=PRUNING, judge=Exact(), prune="all", recipes=[])
        return loop

    whole = make()
    for _ in range(14):
        whole.run_at_random(1)
        if "Pruned" in kinds(whole.grower):
            break
    tree, done = copy.deepcopy(stored(whole)), len(whole.losses)
    whole.run_at_random(8)
    again = restore(make(), tree).run_at_random(8)
    assert again.losses == whole.losses[done:]
    assert not difference(training_state(whole), training_state(again))
    esper.save(tmp_path, whole.model, whole.grower)
    fresh = esper.load(tmp_path, IDLE.make(1))
    assert same(model_state(whole.model)["tensors"], model_state(fresh)["tensors"])


def test_a_branch_that_is_hooked_stays() -> None:
    loop = Loop(IDLE)
    loop.model.blocks[1].conv1.register_forward_hook(lambda *_: None)
    loop.grow(controller=PRUNING, judge=Thrifty(), prune="all", recipes=[])
    loop.run(14)
    gone = [e.where for e in loop.grower.history if isinstance(e, Pruned) and e.what == "branch"]
    assert gone == ["blocks.0"]


@pytest.mark.parametrize(
    ("given", "simple"),
    [
        (lambda block, x: block(x), True),
        (lambda block, x: block(x, torch.ones(1)), False),
        (lambda block, x: block(x, scale=2.0), False),
        (lambda block, x: block(x, both=True)[0], False),
        (lambda block, x: block(x[:, :1]), False),
    ],
)
def test_only_what_gives_one_tensor_for_one_alone_can_be_left_out(given: Any, simple: bool) -> None:
    model = nn.ModuleDict({"block": Adding()})
    form = Form()
    with form.watching(model, "block"):
        given(model["block"], torch.randn(3, 4))
    assert form.simple is simple
    assert not model["block"]._forward_hooks


class Adding(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(1, 4)

    def forward(self, x: torch.Tensor, scale: Any = 1.0, *, both: bool = False) -> Any:
        out = x + scale * self.linear(x[:, :1])
        return (out, x) if both else out
