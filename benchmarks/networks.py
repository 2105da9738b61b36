"""The networks of the benchmarks, and the same network with fresh weights. Does not train them."""

from __future__ import annotations

import copy
from collections import OrderedDict
from itertools import pairwise
from typing import Protocol, runtime_checkable

from torch import nn


def mlp(sizes: tuple[int, ...]) -> nn.Sequential:
    """Linear layers ``l1``, ``l2``, … of the given sizes, input first, with a ReLU between any two."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for index, (fan_in, fan_out) in enumerate(pairwise(sizes), start=1):
        layers[f"l{index}"] = nn.Linear(fan_in, fan_out)
        layers[f"relu{index}"] = nn.ReLU()
    layers.popitem()
    return nn.Sequential(layers)


def cnn1d(channels: int) -> nn.Sequential:
    """The hand-made CNN for MNIST-1D, ``(N, 40)`` to ``(N, 10)``: 5,210 parameters at 25 channels."""
    return nn.Sequential(
        OrderedDict(
            signal=nn.Unflatten(1, (1, 40)),
            conv1=nn.Conv1d(1, channels, 5, stride=2, padding=1),
            relu1=nn.ReLU(),
            conv2=nn.Conv1d(channels, channels, 3, stride=2, padding=1),
            relu2=nn.ReLU(),
            conv3=nn.Conv1d(channels, channels, 3, stride=2, padding=1),
            relu3=nn.ReLU(),
            flat=nn.Flatten(),
            head=nn.Linear(5 * channels, 10),
        )
    )


def image_mlp(*hidden: int) -> nn.Sequential:
    """Images ``(N, 1, 28, 28)`` flattened into linear layers ``l1``, ``l2``, …"""
    return nn.Sequential(OrderedDict(flat=nn.Flatten(), **dict(mlp((784, *hidden, 10)).named_children())))


def image_cnn(channels: int, *, depth: int = 2) -> nn.Sequential:
    """``depth`` 3×3 convolutions of stride 2 with batch norm, then average pooling and a linear head."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for index in range(1, depth + 1):
        fan_in = 1 if index == 1 else channels * 2 ** (index - 2)
        fan_out = channels * 2 ** (index - 1)
        layers[f"conv{index}"] = nn.Conv2d(fan_in, fan_out, 3, stride=2, padding=1)
        layers[f"norm{index}"] = nn.BatchNorm2d(fan_out)
        layers[f"relu{index}"] = nn.ReLU()
    layers.update(
        pool=nn.AdaptiveAvgPool2d(1), flat=nn.Flatten(), head=nn.Linear(channels * 2 ** (depth - 1), 10)
    )
    return nn.Sequential(layers)


def staged_cnn(widths: tuple[int, ...], *, side: int) -> nn.Sequential:
    """Images ``(N, 1, side, side)``: stages of two 3×3 convolutions with batch norm, pooled to half; a linear head.

    ``widths`` are the channels of all convolutions in order.
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for index, (fan_in, fan_out) in enumerate(pairwise((1, *widths)), start=1):
        layers[f"conv{index}"] = nn.Conv2d(fan_in, fan_out, 3, padding=1)
        layers[f"norm{index}"] = nn.BatchNorm2d(fan_out)
        layers[f"relu{index}"] = nn.ReLU()
        if index % 2 == 0:
            layers[f"pool{index // 2}"] = nn.MaxPool2d(2)
            side //= 2
    layers.update(flat=nn.Flatten(), head=nn.Linear(widths[-1] * side * side, 10))
    return nn.Sequential(layers)


def num_params(model: nn.Module) -> int:
    """Number of trainable parameters."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def scaled_mlp(shape: tuple[int, ...], inputs: int, outputs: int, params: int) -> nn.Sequential:
    """An MLP with hidden layers in the proportions of ``shape``, of nearly ``params`` parameters."""

    def sizes(width: int) -> tuple[int, ...]:
        return (inputs, *(max(round(width * part / max(shape)), 1) for part in shape), outputs)

    def distance(width: int) -> int:
        return abs(sum((fan_in + 1) * fan_out for fan_in, fan_out in pairwise(sizes(width))) - params)

    return mlp(sizes(min(range(1, 2_000), key=distance)))


@runtime_checkable
class _Resettable(Protocol):
    def reset_parameters(self) -> None: ...


def reinitialised(model: nn.Module) -> nn.Module:
    """A copy of ``model`` with every weight drawn anew from torch's global random stream, buffers included.

    Raises:
        ValueError: a module owns parameters and does not know how to draw them.
    """
    fresh = copy.deepcopy(model)
    for name, module in fresh.named_modules():
        if isinstance(module, _Resettable):
            module.reset_parameters()
        elif isinstance(module, nn.MultiheadAttention):
            module._reset_parameters()
        elif list(module.parameters(recurse=False)):
            _redraw(name, module)
    return fresh


def _redraw(name: str, module: nn.Module) -> None:
    """A folded linear or convolutional layer keeps bare ``weight`` and ``bias``: redraw them as torch draws these."""
    own = dict(module.named_parameters(recurse=False))
    weight = own.pop("weight", None)
    if weight is None or weight.dim() < 2 or own.keys() - {"bias"}:
        raise ValueError(
            f"{name or 'the model'} ({type(module).__name__}) owns parameters that cannot be redrawn"
        )
    nn.init.kaiming_uniform_(weight, a=5**0.5)
    for bias in own.values():
        bound = weight[0].numel() ** -0.5
        nn.init.uniform_(bias, -bound, bound)
