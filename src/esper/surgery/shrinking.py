"""Takes units out of a block: slices the weights of its layers, which stay the same objects. Does not know why they go.

A unit without outgoing weights changes nothing: so `silenced` shows what the model is without units before they are
taken out for good.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from esper.surgery.block import Block
from esper.surgery.graft import all_cuts, all_grafts
from esper.surgery.unit_axes import RECURRENT, Axis, UnitTensor, resize, unit_tensors
from esper.surgery.widening import interferes, resizable


class Shrunk(NamedTuple):
    """A parameter ``new`` that took the place of ``old``, and which positions along which dimensions are left of it."""

    old: nn.Parameter
    new: nn.Parameter
    kept: tuple[tuple[int, Tensor], ...]

    def of(self, tensor: Tensor) -> Tensor:
        """The same positions of a tensor that goes with ``old``; dimensions of another length are left alone."""
        if tensor.dim() != self.old.dim():
            return tensor
        for dim, positions in self.kept:
            if tensor.shape[dim] == self.old.shape[dim]:
                tensor = tensor.index_select(dim, positions.to(tensor.device))
        return tensor


def shrinkable(model: nn.Module, block: Block) -> bool:
    """Whether units can be taken out of a block as the model is now: no cut and no graft reaches inside."""
    modules = {*block.producers, *block.middle, block.consumer}
    if modules & all_cuts(model) or not resizable(model, block):
        return False
    return not any(interferes(graft, block) for _, graft in all_grafts(model))


def together(block: Block) -> Tensor:
    """Units by number, shape ``(parts, units of a part)``: those of one part can only go together."""
    units = torch.arange(block.width)
    if block.groups > 1:
        return units.view(block.groups, -1).T
    return units.view(-1, block.multiple)


@contextmanager
def silenced(model: nn.Module, units: Mapping[Block, Tensor]) -> Iterator[None]:
    """Inside the context nothing reads these units; afterwards all weights are as they were, to the bit."""
    kept = []
    try:
        for block, numbers in units.items():
            for weight, dim, positions in _outgoing(model, block, numbers):
                kept.append((weight, weight.clone()))
                weight.index_fill_(dim, positions.to(weight.device), 0.0)
        yield
    finally:
        for weight, before in reversed(kept):
            weight.copy_(before)


@torch.no_grad()
def shrink(model: nn.Module, block: Block, units: Iterable[int]) -> list[Shrunk]:
    """Take ``units``, whole parts of `together`, out of a block; what became of its parameters, in order."""
    gone = set(units)
    left = torch.tensor([number for number in range(block.width) if number not in gone])
    changes = []
    for place in list(unit_tensors(model, block)):
        change = _slice(model, place, left)
        changes += [] if change is None else [change]
    resize(model, block, len(left) - block.width)
    return changes


def _slice(model: nn.Module, place: UnitTensor, left: Tensor) -> Shrunk | None:
    module = model.get_submodule(place.module)
    if place.name in module._buffers:
        buffer = module.get_buffer(place.name)
        for dim, positions in _positions(buffer, place.axes, left):
            buffer = buffer.index_select(dim, positions.to(buffer.device))
        module._buffers[place.name] = buffer
        return None
    old = module.get_parameter(place.name)
    change = Shrunk(old, old, tuple(_positions(old, place.axes, left)))
    new = nn.Parameter(change.of(old.detach()).clone(), requires_grad=old.requires_grad)
    vars(new).update(vars(old))
    if old.grad is not None:
        new.grad = change.of(old.grad)
    setattr(module, place.name, new)
    return change._replace(new=new)


def _outgoing(model: nn.Module, block: Block, units: Tensor) -> Iterator[tuple[Tensor, int, Tensor]]:
    """Weights that read units, along which dimension, and where."""
    for place in unit_tensors(model, block):
        module = model.get_submodule(place.module)
        weight = _values(module, place.name)
        for axis in place.axes:
            if weight is not None and (place.module == block.consumer or _is_recurrent(module, axis)):
                yield weight, axis.dim, axis.of_units(weight.shape[axis.dim], units)


def _values(module: nn.Module, name: str) -> Tensor | None:
    """The values of a parameter; writing to them leaves no mark for autograd, which is not concerned."""
    parameter = module._parameters.get(name)
    return None if parameter is None else parameter.data


def _is_recurrent(module: nn.Module, axis: Axis) -> bool:
    return isinstance(module, RECURRENT) and axis.dim == 1


def _positions(tensor: Tensor, axes: Iterable[Axis], left: Tensor) -> Iterator[tuple[int, Tensor]]:
    for axis in axes:
        yield axis.dim, axis.of_units(tensor.shape[axis.dim], left)
