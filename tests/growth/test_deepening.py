"""Residual streams grow deeper: a block after a block, silent at birth, where depth is what is missing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import esper
from esper import Budget, Grower, Recipe, Rules, held_out
from esper.blueprints import build
from esper.events import Attached
from esper.surgery.graft import Graft, attach
from esper.surgery.isolation import isolated
from esper.surgery.sites import discover
from esper.surgery.trace import trace


class Block(nn.Module):
    """A feed-forward part on a residual stream, norm first."""

    def __init__(self, width: int, *, hidden: int = 8) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, hidden)
        self.down = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(torch.relu(self.up(self.norm(x))))


class Stream(nn.Module):
    """A stem, blocks, and a head; between the blocks what is no block."""

    def __init__(self, depth: int, *, width: int = 8) -> None:
        super().__init__()
        self.stem = nn.Linear(4, width)
        self.blocks = nn.ModuleList(Block(width) for _ in range(depth))
        self.between = nn.Sequential(nn.Linear(width, width), nn.Tanh())
        self.head = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(self.between(x))


class Outer(nn.Module):
    """The same inside modules that only pass it on."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(4, 8)
        self.inner = nn.Sequential(Block(8), Block(8))
        self.pair = Twice(8)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.pair(self.inner(self.stem(x))))


class Twice(nn.Module):
    """Two blocks of which the second ends where this module does."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = Block(width)
        self.second = Block(width)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x))


def deeper(model: nn.Module) -> list[str]:
    x = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    with isolated(model):
        found = discover(trace(model, lambda: model(x))).sites
    return [site.name for site in found if site.attachment == "after"]


def test_every_block_of_a_residual_stream_is_a_site_and_nothing_else() -> None:
    assert deeper(Stream(2)) == ["blocks.0+", "blocks.1+"]
    assert deeper(Outer()) == ["inner.0+", "inner.1+", "pair.first+", "pair.second+"]


def test_a_block_that_is_called_twice_is_one_site_and_runs_twice() -> None:
    model = Stream(1)
    model.blocks.append(model.blocks[0])
    x = torch.randn(6, 4)
    found = discover(trace(model, lambda: model(x)))
    assert [site.name for site in found.sites if site.attachment == "after"] == ["blocks.0+"]
    assert found.runs["blocks.0+"] == 2


@pytest.mark.parametrize("recipe", [Recipe.of("ffn"), Recipe.of("mlp")], ids=str)
def test_a_fresh_block_changes_nothing_and_what_is_before_it_keeps_its_gradients(recipe: Recipe) -> None:
    model, x = Stream(1), torch.randn(6, 4)
    site = next(s for s in discover(trace(model, lambda: model(x))).sites if s.name == "blocks.0+")
    before = model(x)
    before.sum().backward()
    gradients = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    attach(model, Graft(build(recipe, site, seed=0), site, recipe))
    assert torch.equal(model(x), before)
    model(x).sum().backward()
    own = [p.grad for name, p in model.named_parameters() if "grafts" not in name]
    torch.testing.assert_close(own, gradients)


def short() -> nn.Module:
    """One block of two units: too little for the sign of a product."""
    return nn.Sequential(nn.Linear(4, 8), Block(8, hidden=2), nn.Linear(8, 3))


def test_a_stream_that_is_too_short_grows_a_block_which_folds_and_loads(tmp_path: Path) -> None:
    x = torch.randn(1_500, 4, generator=torch.Generator().manual_seed(0))
    y = (x[:, 0] * x[:, 1] > 0).long()
    torch.manual_seed(0)
    model = short()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    grower = Grower(
        model,
        optimizer,
        evaluate=held_out([(x[1_000:], y[1_000:])], F.cross_entropy),
        total_steps=1_200,
        sites=["1+"],
        recipes=[Recipe.of("ffn", ratio=2.0)],
        controller=Rules(updates=60, trial=200, rest_steps=20, start=50),
        budget=Budget(params_ratio=None, grafts=1),
    )
    generator = torch.Generator().manual_seed(1)
    for _ in range(300):
        rows = torch.randint(1_000, (64,), generator=generator)
        optimizer.zero_grad()
        F.cross_entropy(model(x[rows]), y[rows]).backward()
        optimizer.step()
        grower.step(lambda rows=rows: F.cross_entropy(model(x[rows]), y[rows]))
    assert [e.path for e in grower.history if isinstance(e, Attached)] == ["1.grafts.0"]
    before = model(x[:8])
    assert grower.finish() is model
    torch.testing.assert_close(model(x[:8]), before)
    esper.save(tmp_path, model, grower)
    assert torch.equal(esper.load(tmp_path, short())(x[:8]), model(x[:8]))
