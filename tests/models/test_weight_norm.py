"""A temporal convolutional network under weight norm: as a parametrisation, and by torch's older hooks."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from esper import Recipe
from models.conformance import Conformance
from models.family import NUM_CLASSES, NUM_EXAMPLES, Family, Inputs, Need, scores

Norm = Callable[[nn.Module], nn.Module]


class Layer(nn.Module):
    """A causal convolution beside a shortcut."""

    def __init__(self, num_in: int, num_out: int, *, dilation: int, norm: Norm) -> None:
        super().__init__()
        self.pad = nn.ConstantPad1d((2 * dilation, 0), 0.0)
        self.conv = norm(nn.Conv1d(num_in, num_out, 3, dilation=dilation))
        self.short = nn.Conv1d(num_in, num_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.conv(self.pad(x))) + self.short(x)


class TCN(nn.Module):
    """Two layers and the last time step."""

    def __init__(self, norm: Norm) -> None:
        super().__init__()
        self.layers = nn.Sequential(Layer(3, 8, dilation=1, norm=norm), Layer(8, 8, dilation=2, norm=norm))
        self.head = norm(nn.Linear(8, NUM_CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layers(x)[:, :, -1])


def _old_hook(layer: nn.Module) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return nn.utils.weight_norm(layer)


def _signals(generator: torch.Generator) -> Inputs:
    return (torch.randn(NUM_EXAMPLES, 3, 12, generator=generator),)


NEED = Need("layers.1.conv", Recipe.of("conv1d"), strength=1.0)
FAMILY = Family(
    "TCN under weight norm", "written here", lambda: TCN(parametrizations.weight_norm), _signals, scores, NEED
)
OLD = Family(
    "TCN under weight norm, old hooks", "written here", lambda: TCN(_old_hook), _signals, scores, NEED
)


class TestParametrised(Conformance):
    family = FAMILY


class TestHooked(Conformance):
    family = OLD
