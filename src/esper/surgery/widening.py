"""Melts widening grafts into the model's own layers, which become larger. Does not know the optimizer.

Weights are joined along the axes of the units; module objects, their classes, names and hooks stay. What one widening
did not see of another (units added to the layer before, or after) it meets with zeros.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from esper.surgery.block import Block
from esper.surgery.graft import Graft, all_cuts, all_grafts, detach, grafts_of
from esper.surgery.names import above
from esper.surgery.narrow import name_of_layer
from esper.surgery.site import Site
from esper.surgery.unit_axes import (
    UnitTensor,
    consumer_of,
    flaw_of,
    producer_of,
    resize,
    shared_modules,
    unit_tensors,
)

WIDEN = "widen"
Place = tuple[str, int]


@dataclass(frozen=True)
class Joint:
    """How a tensor and a smaller one of new units become one; where neither has an entry, it is zero.

    ``own`` and ``more`` are their positions in the first dimensions of the result.
    """

    shape: tuple[int, ...]
    own: tuple[Tensor, ...]
    more: tuple[Tensor, ...]
    turned: bool

    def __call__(self, tensor: Tensor, piece: Tensor) -> Tensor:
        """The larger tensor, in dtype and on the device of ``tensor``.

        A dimension of both that is 1 instead of what it was stays so, and holds what ``tensor`` has there.
        """
        turned = piece.T if self.turned else piece
        shape = list(tensor.shape)
        own, more = list(self.own), list(self.more)
        for dim, places in enumerate(self.own):
            if tensor.shape[dim] == len(places):
                shape[dim] = self.shape[dim]
            else:
                own[dim] = more[dim] = torch.zeros(1, dtype=torch.long)
        joined = tensor.new_zeros(shape)
        joined[_grid(more)] = turned.to(tensor)
        joined[_grid(own)] = tensor
        return joined


class Enlarged(NamedTuple):
    """A parameter that took the place of ``old``, with ``piece`` in it, and how the two were joined."""

    old: nn.Parameter
    new: nn.Parameter
    piece: nn.Parameter
    joint: Joint


def is_widening(graft: Graft) -> bool:
    """Whether a graft is more units of a block of the model's own layers."""
    return graft.site.block is not None and graft.recipe.blueprint == WIDEN


def widenable(model: nn.Module) -> list[Place]:
    """Exit and number of every widening graft that can become a part of the model's own layers, in order.

    A cut, another kind of graft that reads or writes inside the block, or weights that are shared, frozen or made of
    other tensors stand in the way.
    """
    grafts = [graft for _, graft in all_grafts(model)]
    good = [graft for graft in grafts if _is_plain_widening(model, graft)]
    while True:
        others = [graft for graft in grafts if graft not in good]
        left = [graft for graft in good if not any(_interfere(other, graft) for other in others)]
        if len(left) == len(good):
            return [(graft.site.exit, grafts_of(model, graft.site.exit).index(graft)) for graft in left]
        good = left


def widen(model: nn.Module, places: Iterable[Sequence[str | int]]) -> list[Enlarged]:
    """Make the layers of ``model`` larger by the grafts at ``places``, which leave; its enlarged parameters, in order.

    The function stays the same up to rounding.
    """
    grafts = [grafts_of(model, str(name))[int(number)] for name, number in places]
    seen: dict[tuple[str, str, int], Tensor] = {}
    found = []
    for graft in grafts:
        detach(model, graft)
        found += _join(model, graft, seen)
    return found


@torch.no_grad()
def _join(model: nn.Module, graft: Graft, seen: dict[tuple[str, str, int], Tensor]) -> list[Enlarged]:
    """``seen`` holds the positions of the entries that were there before any widening, where that has changed."""
    block = graft.site.block
    assert block is not None
    found = []
    for place in list(unit_tensors(model, block)):
        module = model.get_submodule(place.module)
        body = graft.body.get_submodule(name_of_layer(place.layer))
        if place.name in module._parameters:
            old, piece = module.get_parameter(place.name), body.get_parameter(place.name)
            joint = _joint(old, piece, place, seen)
            new = _like(old, joint(old.detach(), piece.detach()))
            if old.grad is not None:
                new.grad = joint(old.grad, torch.zeros_like(piece) if piece.grad is None else piece.grad)
            setattr(module, place.name, new)
            found.append(Enlarged(old, new, piece, joint))
        else:
            buffer, more = module.get_buffer(place.name), body.get_buffer(place.name)
            module._buffers[place.name] = _joint(buffer, more, place, seen)(buffer, more)
    resize(model, block, _num_units(graft, block))
    return found


def _joint(
    tensor: Tensor, piece: Tensor, place: UnitTensor, seen: dict[tuple[str, str, int], Tensor]
) -> Joint:
    by_dim = {axis.dim: axis for axis in place.axes}
    small = piece.shape[::-1] if place.turned else piece.shape
    shape, own, more = list(tensor.shape), [], []
    for dim in range(min(2, tensor.dim())):
        key = (place.module, place.name, dim)
        first = seen.get(key, torch.arange(tensor.shape[dim]))
        if dim not in by_dim:
            own.append(torch.arange(tensor.shape[dim]))
            more.append(first)
            continue
        axis = by_dim[dim]
        units = small[dim] // (axis.outer * axis.inner) * axis.share
        present, added = axis.positions(tensor.shape[dim], units)
        shape[dim] += small[dim]
        own.append(present)
        more.append(added)
        seen[key] = present[first]
    return Joint(tuple(shape), tuple(own), tuple(more), place.turned)


def _like(old: nn.Parameter, value: Tensor) -> nn.Parameter:
    new = nn.Parameter(value, requires_grad=old.requires_grad)
    vars(new).update(vars(old))
    return new


def _grid(positions: Sequence[Tensor]) -> tuple[Tensor, ...]:
    return tuple(torch.meshgrid(*positions, indexing="ij"))


def _num_units(graft: Graft, block: Block) -> int:
    number = next(number for number, layer in enumerate(block.layers) if layer.role == "producer")
    end = producer_of(graft.body.get_submodule(name_of_layer(number)))
    assert end is not None
    return end.units


def _is_plain_widening(model: nn.Module, graft: Graft) -> bool:
    if graft.site.block is None or not is_widening(graft) or graft.site.exit in all_cuts(model):
        return False
    return resizable(model, graft.site.block)


def resizable(model: nn.Module, block: Block) -> bool:
    """Whether the layers of a block can be made larger or smaller: they train weights that are theirs alone."""
    shared = shared_modules(model)
    if flaw_of(model, block.consumer, consumer_of, shared=shared):
        return False
    if any(flaw_of(model, name, producer_of, shared=shared) for name in block.producers):
        return False
    if any(name in shared or parametrize.is_parametrized(model.get_submodule(name)) for name in block.middle):
        return False
    return all(_trains(model, place) for place in unit_tensors(model, block))


def _trains(model: nn.Module, place: UnitTensor) -> bool:
    parameter = model.get_submodule(place.module)._parameters.get(place.name)
    return parameter is None or parameter.requires_grad


def _interfere(other: Graft, graft: Graft) -> bool:
    assert graft.site.block is not None
    return interferes(other, graft.site.block)


def unhampered(model: nn.Module, sites: Iterable[Site]) -> list[Site]:
    """Those of ``sites`` where a graft and all that are attached could be folded: a bound block is nobody else's."""
    attached = [graft.site for _, graft in all_grafts(model)]
    bound = [site.block for site in attached if site.block is not None and site.block.bound]
    cuts = all_cuts(model)

    def is_free(site: Site) -> bool:
        if site.block is None or not site.block.bound:
            return not any(reaches_into(site, block) for block in bound)
        return site.exit not in cuts and not any(reaches_into(other, site.block) for other in attached)

    return [site for site in sites if is_free(site)]


def interferes(other: Graft, block: Block) -> bool:
    """Whether a graft reads or writes what lies inside a block."""
    return reaches_into(other.site, block)


def reaches_into(site: Site, block: Block) -> bool:
    """Whether a graft at ``site`` would read or write what lies inside a block."""
    within = {*block.middle, *block.producers, block.consumer}
    written = within - {block.consumer} | (
        _holders({*block.producers, *block.middle}) - _holders([block.consumer])
    )
    read = within - set(block.producers) | (
        _holders({*block.middle, block.consumer}) - _holders(block.producers)
    )
    reads = site.exit in written if site.attachment == "after" else site.entry in read
    return reads or site.exit in written


def _holders(names: Iterable[str]) -> set[str]:
    return {holder for name in names for holder in above(name)}
