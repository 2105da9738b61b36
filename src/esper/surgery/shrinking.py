"""Takes units out of a block: slices the weights of its layers, which stay the same objects. Does not know why they go.

What nothing reads can go without a change: so `without` shows what the model is without some units before they are
taken out for good.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from esper.surgery.block import Block
from esper.surgery.graft import all_cuts, all_grafts
from esper.surgery.unit_axes import RECURRENT, Axis, UnitTensor, resize, unit_tensors
from esper.surgery.widening import interferes, resizable


class Removal(NamedTuple):
    """Units of a block that go, by number.

    ``shares``, shape ``(units that stay + 1, units that go)``: how much of each the others, and a constant, take over.
    ``None``: nothing.
    """

    block: Block
    units: Tensor
    shares: Tensor | None = None

    @property
    def staying(self) -> Tensor:
        """The other units, in order."""
        stay = torch.ones(self.block.width, dtype=torch.bool)
        stay[self.units] = False
        return stay.nonzero().flatten()


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


def can_take_over(model: nn.Module, block: Block) -> bool:
    """Whether the units of a block can take over from each other: all are heard by the same weights, and now."""
    recurrent = any(isinstance(model.get_submodule(name), RECURRENT) for name in block.producers)
    return block.groups == 1 and not recurrent


def loudness(model: nn.Module, block: Block) -> Tensor:
    """Norm of the weights that read each unit, shape ``(width,)``, float64 on the CPU."""
    places = [place for place in unit_tensors(model, block) if place.module == block.consumer]
    (axis,), weight = places[0].axes, model.get_submodule(block.consumer).get_parameter(places[0].name)
    last = weight.detach().double().cpu().movedim(axis.dim, -1)
    units = last.reshape(-1, block.outer, block.width // axis.share, block.inner)
    return units.square().sum((0, 1, 3)).sqrt().repeat(axis.share)


def together(block: Block) -> Tensor:
    """Units by number, shape ``(parts, units of a part)``: those of one part can only go together."""
    units = torch.arange(block.width)
    if block.groups > 1:
        return units.view(block.groups, -1).T
    return units.view(-1, block.multiple)


@contextmanager
def without(model: nn.Module, removals: Iterable[Removal]) -> Iterator[None]:
    """Inside the context nothing reads these units; afterwards all weights are as they were, to the bit."""
    kept = []
    try:
        for removal in removals:
            for tensor, value in _rewritten(model, removal):
                kept.append((tensor, tensor.clone()))
                tensor.copy_(value)
        yield
    finally:
        for tensor, before in reversed(kept):
            tensor.copy_(before)


def take_over(model: nn.Module, removal: Removal) -> None:
    """Let nothing read the units any more; the others say what they can of them."""
    for tensor, value in _rewritten(model, removal):
        tensor.copy_(value)


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


def _rewritten(model: nn.Module, removal: Removal) -> Iterator[tuple[Tensor, Tensor]]:
    """Weights that read the units, and what they are to be. Writing to these leaves no mark for autograd."""
    block, reader = removal.block, model.get_submodule(removal.block.consumer)
    for place in unit_tensors(model, block):
        module = model.get_submodule(place.module)
        for axis in place.axes if place.name in module._parameters else ():
            weight = module.get_parameter(place.name).data
            if isinstance(module, RECURRENT) and axis.dim == 1:
                yield weight, weight.index_fill(1, _where(weight, axis, removal.units), 0.0)
            elif module is reader and removal.shares is None:
                yield weight, weight.index_fill(axis.dim, _where(weight, axis, removal.units), 0.0)
            elif module is reader:
                heard, constant = _handed_over(weight, axis.dim, removal)
                yield weight, heard
                if reader._parameters.get("bias") is not None:
                    bias = reader.get_parameter("bias").data
                    yield bias, (bias.double() + constant).to(bias)


def _where(weight: Tensor, axis: Axis, units: Tensor) -> Tensor:
    return axis.of_units(weight.shape[axis.dim], units).to(weight.device)


def _handed_over(weight: Tensor, dim: int, removal: Removal) -> tuple[Tensor, Tensor]:
    """The reader's weight with the shares of the units that stay, and the constant for its bias."""
    assert removal.shares is not None
    block, shares = removal.block, removal.shares.to(weight.device)
    last = weight.movedim(dim, -1)
    split = last.double().reshape(*last.shape[:-1], block.outer, block.width, block.inner).clone()
    gone = split[..., removal.units, :].clone()
    split[..., removal.staying, :] += torch.einsum("...gi,kg->...ki", gone, shares[:-1])
    split[..., removal.units, :] = 0.0
    constant = (gone * shares[-1][:, None]).flatten(1).sum(1)
    return split.reshape(last.shape).movedim(-1, dim).to(weight), constant


def _positions(tensor: Tensor, axes: Iterable[Axis], left: Tensor) -> Iterator[tuple[int, Tensor]]:
    for axis in axes:
        yield axis.dim, axis.of_units(tensor.shape[axis.dim], left)
