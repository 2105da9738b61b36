"""A kind of network that people train, with a task that it cannot do as it is. Knows nothing of how it is proved."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from esper import Recipe
from esper.blueprints import build
from esper.surgery.graft import Graft, attach
from esper.surgery.isolation import isolated
from esper.surgery.site import Site
from esper.surgery.sites import discover
from esper.surgery.trace import trace

NUM_EXAMPLES = 16
NUM_WORDS = 12
NUM_TOKENS = 8
NUM_CLASSES = 3

Inputs = tuple[Tensor, ...]
Batch = tuple[Inputs, Tensor]


@dataclass(frozen=True)
class Need:
    """What is planted: the wanted scores are those of the host itself with one graft more, ``recipe`` at ``site``.

    ``strength`` scales the last projection of that graft; ``lr`` is the learning rate at the site.
    """

    site: str
    recipe: Recipe
    strength: float = 3.0
    lr: float = 3e-3


def _itself(model: nn.Module) -> nn.Module:
    return model


@dataclass(frozen=True)
class Family:
    """A kind of network, the inputs of a batch, what of its output is trained, and what it lacks.

    ``origin`` is whose code it is. ``forward`` asks the model for scores, in the order of the examples. ``plain`` makes
    of the model what is exported: a module that takes the inputs by position and returns the scores and nothing else.
    """

    name: str
    origin: str
    build: Callable[[], nn.Module]
    draw: Callable[[torch.Generator], Inputs]
    forward: Callable[[nn.Module, Inputs], Tensor]
    need: Need
    plain: Callable[[nn.Module], nn.Module] = _itself

    def make(self, seed: int) -> nn.Module:
        """A fresh model in training mode; the same one for the same seed."""
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            return self.build().train()

    def batch(self, seed: int) -> Batch:
        """Inputs, and the scores that the teacher gives them; the same ones for the same seed."""
        inputs = self.draw(torch.Generator().manual_seed(seed))
        with torch.no_grad():
            return inputs, self.forward(teacher(self), inputs)

    def loss(self, model: nn.Module, batch: Batch, *, reduction: Literal["mean", "none"] = "mean") -> Tensor:
        """Squared error: a scalar, or with ``"none"`` one value per example, shape ``(B,)``."""
        inputs, wanted = batch
        losses = (self.forward(model, inputs) - wanted).square().reshape(NUM_EXAMPLES, -1).mean(1)
        return losses.mean() if reduction == "mean" else losses


@functools.cache
def teacher(family: Family) -> nn.Module:
    """The host with the missing part, frozen and in eval mode."""
    model, need = family.make(0), family.need
    site = find_site(family, model)
    graft = Graft(build(need.recipe, site, seed=1), site, need.recipe)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in graft.parameters():
            if parameter.dim() > 1 and not parameter.any():
                parameter.add_(need.strength * torch.randn(parameter.shape, generator=generator))
    attach(model, graft)
    _settle(model, family)
    return model.eval().requires_grad_(False)


def _settle(model: nn.Module, family: Family) -> None:
    """Running statistics, and the vectors of a spectral norm, need passes in training mode to mean anything."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        for _ in range(30):
            family.forward(model, family.draw(generator))


def find_site(family: Family, model: nn.Module) -> Site:
    """The place of the need, as growth finds it."""
    inputs = family.draw(torch.Generator().manual_seed(0))
    with isolated(model):
        found = discover(trace(model, lambda: family.forward(model, inputs)))
    return found.select(family.need.site).sites[0]


def scores(model: nn.Module, inputs: Inputs) -> Tensor:
    """The model returns the scores."""
    return model(*inputs)


def logits(model: nn.Module, inputs: Inputs) -> Tensor:
    """The scores in what models of ``transformers`` return."""
    return model(*inputs).logits


def words(generator: torch.Generator) -> Inputs:
    """One sequence of token numbers an example."""
    return (torch.randint(NUM_WORDS, (NUM_EXAMPLES, NUM_TOKENS), generator=generator),)


def pictures(generator: torch.Generator) -> Inputs:
    """One small colour picture an example: coarse shapes, since noise would be lost in any mean over places."""
    coarse = torch.randn(NUM_EXAMPLES, 3, 2, 2, generator=generator)
    fine = torch.randn(NUM_EXAMPLES, 3, 8, 8, generator=generator)
    return (nn.functional.interpolate(coarse, scale_factor=4) + 0.3 * fine,)


class Logits(nn.Module):
    """Returns nothing but the scores, as an exported network should."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor) -> Tensor:
        return self.model(tokens).logits
