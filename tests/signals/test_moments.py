"""AdamW without its optimizer."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from esper.signals.moments import Moments


def layers() -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    made = nn.Sequential(nn.Linear(3, 4), nn.Conv1d(2, 3, 5), nn.LayerNorm(6))
    for parameter in made.parameters():
        parameter.data.copy_(torch.randn(parameter.shape, generator=generator))
    return made


def give_gradients(module: nn.Module, step: int, *, none_for: int | None = None) -> None:
    generator = torch.Generator().manual_seed(step)
    for place, parameter in enumerate(module.parameters()):
        gradient = torch.randn(parameter.shape, generator=generator)
        parameter.grad = None if place == none_for else gradient


@pytest.mark.parametrize("idle", [None, 2], ids=["all", "all but one"])
def test_steps_are_those_of_torch_to_the_bit(idle: int | None) -> None:
    ours, theirs = layers(), layers()
    moments = Moments(ours.parameters(), lr=3e-3)
    optimizer = torch.optim.AdamW(theirs.parameters(), lr=3e-3, fused=True)
    for step in range(5):
        for module in (ours, theirs):
            give_gradients(module, step, none_for=idle if step != 3 else None)
        moments.step()
        optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))


def test_gradients_are_gone_after_a_step_and_without_any_nothing_moves() -> None:
    module = layers()
    moments = Moments(module.parameters(), lr=3e-3)
    give_gradients(module, 0)
    moments.step()
    assert all(parameter.grad is None for parameter in module.parameters())
    before = copy.deepcopy(module.state_dict())
    moments.step()
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_restored_moments_go_on_to_the_bit() -> None:
    ours, other = layers(), layers()
    moments, restored = Moments(ours.parameters(), lr=3e-3), Moments(other.parameters(), lr=3e-3)
    give_gradients(ours, 0)
    moments.step()
    other.load_state_dict(ours.state_dict())
    restored.load_state_dict(copy.deepcopy(moments.state_dict()))
    for module, own in ((ours, moments), (other, restored)):
        give_gradients(module, 1)
        own.step()
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), other.parameters(), strict=True))
