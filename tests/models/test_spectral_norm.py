"""A critic under spectral norm: as a parametrisation, and by torch's older hooks."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from esper import Recipe
from models.conformance import Conformance
from models.family import Family, Need, pictures, scores

Norm = Callable[[nn.Module], nn.Module]


class Critic(nn.Module):
    """Convolutions with strides, one score a picture."""

    def __init__(self, norm: Norm) -> None:
        super().__init__()
        self.first = norm(nn.Conv2d(3, 8, 3, stride=2, padding=1))
        self.second = norm(nn.Conv2d(8, 12, 3, padding=1))
        self.head = norm(nn.Linear(12, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.nn.functional.leaky_relu(self.first(x), 0.2)
        x = torch.nn.functional.leaky_relu(self.second(x), 0.2)
        return self.head(x.mean((2, 3)))


NEED = Need("second", Recipe.of("mlp", ratio=4.0), strength=10.0)
FAMILY = Family(
    "Critic under spectral norm",
    "written here",
    lambda: Critic(parametrizations.spectral_norm),
    pictures,
    scores,
    NEED,
)
OLD = Family(
    "Critic under spectral norm, old hooks",
    "written here",
    lambda: Critic(nn.utils.spectral_norm),
    pictures,
    scores,
    NEED,
)


class TestParametrised(Conformance):
    family = FAMILY


class TestHooked(Conformance):
    family = OLD
