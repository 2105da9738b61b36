"""Where the units of a block lie in the tensors of the model's own layers, and in which sizes they are counted.

Does not know what is done with them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from esper.surgery.block import Block, Layer, Plain, Role
from esper.surgery.per_unit import is_depthwise, options_of

RECURRENT = (nn.RNN, nn.LSTM, nn.GRU)
GATES = {"LSTM": 4, "GRU": 3}


Options = tuple[tuple[str, Plain], ...]


class End(NamedTuple):
    """A module that makes units, or reads them.

    ``kind`` and ``options`` are class and arguments of a layer of torch like it, without the number of units;
    ``units`` features are made or read. ``last`` says whether they are the last dimension.
    """

    kind: str
    options: Options
    units: int
    groups: int = 1
    last: bool = True


class Axis(NamedTuple):
    """One dimension of a tensor as an array ``(outer, groups, units of a group, inner)``; ``share`` groups share it."""

    dim: int
    outer: int = 1
    inner: int = 1
    groups: int = 1
    share: int = 1

    def positions(self, length: int, added: int) -> tuple[Tensor, Tensor]:
        """Where present entries, ``length`` of them, and ``added`` more units lie in the dimension made longer."""
        units = length // (self.outer * self.inner)
        more = added // self.share
        grid = torch.arange(self.outer * (units + more) * self.inner)
        grid = grid.view(self.outer, self.groups, (units + more) // self.groups, self.inner)
        own = units // self.groups
        return grid[:, :, :own].flatten(), grid[:, :, own:].flatten()

    def of_units(self, length: int, units: Tensor) -> Tensor:
        """Positions of ``units``, by number, in a dimension of ``length``, in their order.

        Where groups share the dimension the units must have the same places in each group; those of the first count.
        """
        own = length // (self.outer * self.inner)
        grid = torch.arange(length).view(self.outer, own, self.inner)
        return grid[:, units[units < own]].flatten()


class UnitTensor(NamedTuple):
    """A parameter or buffer ``name`` of ``module`` that has units along ``axes``.

    ``layer`` is the number of the layer in the block. ``turned``: a layer of torch has it transposed.
    """

    module: str
    name: str
    axes: tuple[Axis, ...]
    layer: int
    turned: bool = False


def producer_of(module: nn.Module) -> End | None:
    """``module`` as one that makes units; ``None`` if it is not known how."""
    options: Options
    if isinstance(module, nn.Linear):
        options = (("bias", module.bias is not None), ("in_features", module.in_features))
        return End("Linear", options, module.out_features)
    if isinstance(module, nn.Conv1d | nn.Conv2d):
        options = (*_conv(module), ("bias", module.bias is not None), ("in_channels", module.in_channels))
        return End(_kind(module), options, module.out_channels, module.groups, last=False)
    if _is_turned(module):
        options = (("bias", True), ("in_features", vars(module)["nx"]))
        return End("Linear", options, vars(module)["nf"])
    if isinstance(module, RECURRENT) and not module.proj_size:
        options = tuple((name, vars(module)[name]) for name in _recurrent(module))
        return End(module.mode.partition("_")[0], options, module.hidden_size)
    return None


def consumer_of(module: nn.Module) -> End | None:
    """``module`` as one that reads units, without its bias; ``None`` if it is not known how, or is not linear."""
    options: Options
    if isinstance(module, nn.Linear):
        options = (("bias", False), ("out_features", module.out_features))
        return End("Linear", options, module.in_features)
    if isinstance(module, nn.Conv1d | nn.Conv2d) and not is_depthwise(module):
        options = (*_conv(module), ("bias", False), ("out_channels", module.out_channels))
        return End(_kind(module), options, module.in_channels, module.groups, last=False)
    if _is_turned(module):
        options = (("bias", False), ("out_features", vars(module)["nf"]))
        return End("Linear", options, vars(module)["nx"])
    return None


def flaw_of(
    model: nn.Module,
    name: str,
    as_end: Callable[[nn.Module], End | None],
    *,
    shared: frozenset[str] | None = None,
) -> str:
    """Why the weights of a module cannot become larger or smaller; empty if they can.

    ``shared`` are the `shared_modules`, for whoever asks often.
    """
    module = model.get_submodule(name)
    if as_end(module) is None:
        return f"{name} is a {type(module).__name__}, whose units are not known to be separate"
    if parametrize.is_parametrized(module) or "weight" in vars(module):
        return f"the weight of {name} is made of other tensors"
    if not _is_plain(module):
        return f"{name} is a {type(module).__name__} with a forward of its own"
    if name in (shared_modules(model) if shared is None else shared):
        return f"{name} shares a weight with another module"
    return ""


def shared_modules(model: nn.Module) -> frozenset[str]:
    """Names of the modules that are to be found elsewhere in the model too, or one of whose parameters is."""
    owners: dict[int, set[str]] = defaultdict(set)
    for name, module in model.named_modules(remove_duplicate=False):
        own = [p for p in module._parameters.values() if p is not None]
        for thing in (module, *own) if own or module._buffers else ():
            owners[id(thing)].add(name)
    return frozenset(name for names in owners.values() if len(names) > 1 for name in names)


def unit_tensors(model: nn.Module, block: Block) -> Iterator[UnitTensor]:
    """Every tensor of the model that has units of ``block``."""
    for number, layer in enumerate(block.layers):
        if layer.role == "function" or not layer.module:
            continue
        module = model.get_submodule(layer.module)
        for name, axes in _axes(module, layer, block):
            yield UnitTensor(layer.module, name, axes, number, _is_turned(module) and name == "weight")


def resize(model: nn.Module, block: Block, added: int) -> None:
    """Tell the layers of ``block`` that they have ``added`` more units (fewer, below zero)."""
    for layer in block.layers:
        if layer.role == "function" or not layer.module:
            continue
        module = model.get_submodule(layer.module)
        for name, each in _counts(module, layer.role, block).items():
            vars(module)[name] += round(added * layer.parts * each)
    for count in block.counts:
        vars(model.get_submodule(count.module))[count.name] += added // count.each


def _axes(module: nn.Module, layer: Layer, block: Block) -> Iterator[tuple[str, tuple[Axis, ...]]]:
    own = [*module._parameters, *module._buffers]
    if layer.role == "consumer":
        yield "weight", (_read_axis(module, block),)
    elif isinstance(module, RECURRENT):
        for name in own:
            yield name, tuple(_recurrent_axes(module, name))
    else:
        for name in own:
            tensor = module._parameters.get(name) if name in module._parameters else module._buffers[name]
            if tensor is not None and tensor.dim():
                dim = int(_is_turned(module) and name == "weight")
                yield name, (Axis(dim, outer=layer.parts, groups=block.groups),)


def _read_axis(module: nn.Module, block: Block) -> Axis:
    if isinstance(module, nn.Conv1d | nn.Conv2d) and module.groups > 1:
        return Axis(1, share=module.groups)
    return Axis(0 if _is_turned(module) else 1, block.outer, block.inner, block.groups)


def _recurrent_axes(module: nn.RNNBase, name: str) -> Iterator[Axis]:
    yield Axis(0, outer=GATES.get(module.mode, 1))
    if "weight_hh" in name:
        yield Axis(1)
    elif "weight_ih" in name and "_l0" not in name:
        yield Axis(1, outer=2 if module.bidirectional else 1)


def _counts(module: nn.Module, role: Role, block: Block) -> dict[str, float]:
    """Attributes that count units, and how much one unit adds to each."""
    if isinstance(module, nn.Linear):
        return {"in_features": block.outer * block.inner} if role == "consumer" else {"out_features": 1}
    if is_depthwise(module) and role == "layer":
        return {"in_channels": 1, "out_channels": 1, "groups": 1}
    if isinstance(module, nn.Conv1d | nn.Conv2d):
        return {"in_channels": 1} if role == "consumer" else {"out_channels": 1}
    if isinstance(module, RECURRENT):
        return {"hidden_size": 1}
    if isinstance(module, nn.GroupNorm):
        return {"num_channels": 1, "num_groups": module.num_groups / module.num_channels}
    if _is_turned(module):
        return {"nx": block.outer * block.inner} if role == "consumer" else {"nf": 1}
    return {name: 1 for name in ("num_features", "num_parameters") if name in vars(module)}


def _kind(module: nn.Conv1d | nn.Conv2d) -> str:
    return "Conv1d" if isinstance(module, nn.Conv1d) else "Conv2d"


def _conv(module: nn.Conv1d | nn.Conv2d) -> Options:
    return (
        *((name, value) for name, value in options_of(module) if name != "bias"),
        ("groups", module.groups),
    )


def _recurrent(module: nn.RNNBase) -> tuple[str, ...]:
    names = ("batch_first", "bias", "bidirectional", "dropout", "input_size", "num_layers")
    return (*names, "nonlinearity") if isinstance(module, nn.RNN) else names


def _is_turned(module: nn.Module) -> bool:
    """Whether it is the linear layer of GPT-2 in `transformers`, which has its weight the other way round."""
    return type(module).__name__ == "Conv1D" and {"nf", "nx"} <= set(vars(module))


def _is_plain(module: nn.Module) -> bool:
    if "forward" in vars(module):
        return False
    if _is_turned(module):
        return True
    own = type(module)
    kinds = (nn.Linear, nn.Conv1d, nn.Conv2d, *RECURRENT)
    return any(isinstance(module, kind) and own.forward is kind.forward for kind in kinds)
