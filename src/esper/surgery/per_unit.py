"""Layers and functions of torch that treat each unit alone, and where they leave the units. Knows no graph.

All else mixes units, as a layer norm over the width does, or is not known.
"""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from esper.surgery.block import Plain


class Layout(NamedTuple):
    """Where the units lie in a tensor of ``ndim`` dimensions: along ``axis``, ``outer`` times one after another.

    ``flat`` says on which side of them a flattened tensor has its positions.
    """

    axis: int
    ndim: int
    outer: int = 1
    flat: Literal["", "inner", "outer"] = ""

    def dim(self, dim: int) -> int:
        """A dimension counted from the front."""
        return dim % self.ndim


def _listed(*lines: str) -> tuple[str, ...]:
    return tuple(name for line in lines for name in line.split())


ACTIVATIONS = _listed(
    "ReLU ReLU6 LeakyReLU ELU SELU CELU GELU SiLU Mish Sigmoid Tanh Softplus Softsign Hardtanh Hardswish",
    "Hardsigmoid Hardshrink Softshrink Tanhshrink LogSigmoid Threshold Identity Dropout",
)
POOLS = {"1d": 3, "2d": 4}
NORMS = ("BatchNorm1d", "BatchNorm2d", "InstanceNorm1d", "InstanceNorm2d", "GroupNorm", "PReLU")
_POOLING = tuple(
    f"{name}{dims}"
    for name in ("MaxPool", "AvgPool", "LPPool", "AdaptiveAvgPool", "AdaptiveMaxPool", "Dropout")
    for dims in POOLS
)
_OF_SIZE = ("num_features", "num_channels", "num_parameters", "in_channels", "out_channels", "groups")
_LEFT_OUT = (*_OF_SIZE, "inplace", "init", "device", "dtype")

_POINTWISE = _listed(
    "relu relu6 leaky_relu elu selu celu gelu silu mish sigmoid tanh softplus softsign hardtanh hardswish",
    "hardsigmoid hardshrink softshrink tanhshrink logsigmoid threshold neg exp abs square erf clamp sin cos",
    "sqrt contiguous",
)
_OPERATORS = {"add": "add", "sub": "sub", "mul": "mul", "div": "truediv", "truediv": "truediv", "pow": "pow"}
_SHAPING = _listed("flatten view reshape getitem select dropout")
_OVER_POSITIONS = ("mean", "sum", "amax", "amin")
_FUNCTION_POOLS = tuple(
    f"{name}{dims}"
    for name in ("max_pool", "avg_pool", "lp_pool", "adaptive_avg_pool", "adaptive_max_pool")
    for dims in POOLS
)


def is_operator(name: str) -> bool:
    """Whether it is an arithmetic operator, which takes no options."""
    return name in _OPERATORS.values()


def function(name: str) -> Callable[..., Any]:
    """What a name in a block stands for."""
    if is_operator(name) or name == "getitem":
        found = vars(operator)[name]
    else:
        found = vars(F).get(name) or vars(torch).get(name) or vars(torch.Tensor)[name]
    known: Callable[..., Any] = found
    return known


def name_of(target: Callable[..., Any] | str) -> str | None:
    """The name of a function, operator or method in a block; ``None`` if it is not known to treat each unit alone."""
    if isinstance(target, str):
        return _known(target.rstrip("_"))
    plain = target.__name__.strip("_")
    inplace = plain.removeprefix("i") if plain.startswith("i") and plain[1:] in _OPERATORS else plain
    found = next((name for name in (plain, inplace) if _known(name)), None)
    return None if found is None or not is_of_torch(target) else _known(found)


def _known(name: str) -> str | None:
    others = (*_POINTWISE, *_OVER_POSITIONS, *_FUNCTION_POOLS, *_SHAPING)
    return _OPERATORS.get(name) or (name if name in others else None)


def is_of_torch(target: Callable[..., Any]) -> bool:
    """Whether a function is one of torch's, or an operator."""
    return (
        f"{target.__module__}".startswith(("torch", "_operator", "operator"))
        or target in vars(torch).values()
    )


def options_of(module: nn.Module) -> tuple[tuple[str, Plain], ...]:
    """Arguments of a layer's class that do not depend on the number of units, as it keeps them."""
    found = {
        name: vars(module)[name]
        for name in inspect.signature(type(module)).parameters
        if name in vars(module) and name not in _LEFT_OUT
    }
    if "bias" in inspect.signature(type(module)).parameters:
        found["bias"] = module._parameters.get("bias") is not None
    if isinstance(module, nn.GroupNorm):
        found["num_groups"] = module.num_groups
    return tuple(sorted(found.items()))


def after_layer(module: nn.Module, layout: Layout, width: int) -> Layout | str:
    """Where the units lie after a layer of torch, or why it is none that treats each of ``width`` units alone."""
    name = type(module).__name__
    if type(module) is not vars(nn).get(name):
        return f"is a {name}, of which it is not known whether it treats each unit alone"
    if name in ACTIVATIONS:
        return layout
    if isinstance(module, nn.Flatten):
        return flattened(layout, module.start_dim, module.end_dim)
    if name in (*NORMS, *_POOLING) or is_depthwise(module):
        return _after_channels(module, layout, width)
    return f"is a {name}, which mixes units" if name != "Upsample" else "changes lengths"


def _after_channels(module: nn.Module, layout: Layout, width: int) -> Layout | str:
    name = type(module).__name__
    dims = {"1d": (2, 3) if "Norm" in name else (3,), "2d": (4,)}.get(name[-2:], range(2, 6))
    if layout.axis != 1 or layout.flat or layout.outer > 1 or layout.ndim not in dims:
        return f"is a {name}, whose channels are not the units"
    sizes = [value for key, value in vars(module).items() if key in _OF_SIZE]
    if any(size != width for size in sizes):
        return f"is a {name} that shares a weight among the units"
    return layout


def is_depthwise(module: nn.Module) -> bool:
    """Whether a convolution has one filter for each channel."""
    if not isinstance(module, nn.Conv1d | nn.Conv2d):
        return False
    return module.groups == module.in_channels == module.out_channels > 1


def after_function(
    name: str, args: tuple[Plain, ...], options: dict[str, Plain], layout: Layout
) -> Layout | str:
    """Where the units lie after a function of one tensor, given its other arguments."""
    if name in _POINTWISE or is_operator(name):
        return layout
    if name == "flatten":
        given = (
            {"start_dim": 0, "end_dim": -1}
            | dict(zip(("start_dim", "end_dim"), args, strict=False))
            | options
        )
        return flattened(layout, _whole(given["start_dim"]), _whole(given["end_dim"]))
    if name in _OVER_POSITIONS:
        return _without_positions(args, options, layout)
    if name == "select":
        return _without([_whole(args[0])], layout, keep=False)
    fits = layout.axis == 1 and not layout.flat and layout.ndim == POOLS[name[-2:]]
    return layout if fits else f"{name} works on other dimensions than positions"


def _without_positions(args: tuple[Plain, ...], options: dict[str, Plain], layout: Layout) -> Layout | str:
    given = dict(zip(("dim", "keepdim"), args, strict=False)) | options
    dims = given.get("dim")
    if dims is None or isinstance(dims, str | float) or set(given) - {"dim", "keepdim"}:
        return "takes one number of all units"
    listed = [_whole(dim) for dim in dims] if isinstance(dims, tuple) else [int(dims)]
    return _without(listed, layout, keep=bool(given.get("keepdim")))


def _without(dims: list[int], layout: Layout, *, keep: bool) -> Layout | str:
    gone = {layout.dim(dim) for dim in dims}
    if layout.axis in gone:
        return "takes one number of all units"
    if keep:
        return layout
    return layout._replace(
        axis=layout.axis - sum(dim < layout.axis for dim in gone), ndim=layout.ndim - len(gone)
    )


def flattened(layout: Layout, start: int, end: int) -> Layout | str:
    """Where the units lie when dimensions ``start`` to ``end`` have become one."""
    first, last = layout.dim(start), layout.dim(end)
    if first == last or first > layout.axis:
        return layout._replace(ndim=layout.ndim - (last - first))
    if last < layout.axis:
        return layout._replace(axis=layout.axis - (last - first), ndim=layout.ndim - (last - first))
    if first == 0 or layout.flat or layout.outer > 1 or (first < layout.axis < last):
        return "is flattened so that its units are scattered"
    return Layout(first, layout.ndim - (last - first), 1, "inner" if first == layout.axis else "outer")


def _whole(value: Plain) -> int:
    assert isinstance(value, int)
    return value
