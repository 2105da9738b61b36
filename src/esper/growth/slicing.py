"""Makes layers smaller under an optimizer that goes on with what is left of them. Does not know why they shrink."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn
from torch.optim import Optimizer

from esper.growth.optimizers import replace_parameter
from esper.surgery.block import Block
from esper.surgery.shrinking import Removal, Shrunk, shrink, take_over


def shrink_layers(model: nn.Module, block: Block, units: Iterable[int], optimizer: Optimizer | None) -> int:
    """Take ``units`` out of a block; ``optimizer`` goes on with the smaller parameters and their share of its state.

    Returns how many values are gone.
    """
    changes = shrink(model, block, units)
    if optimizer is not None:
        for change in changes:
            _take_place(optimizer, change)
    return sum(change.old.numel() - change.new.numel() for change in changes)


def hand_over(model: nn.Module, removal: Removal, optimizer: Optimizer | None) -> int:
    """As `shrink_layers`, after the units that stay have taken over what they can."""
    take_over(model, removal)
    return shrink_layers(model, removal.block, removal.units.tolist(), optimizer)


def _take_place(optimizer: Optimizer, change: Shrunk) -> None:
    state = optimizer.state.get(change.old, {})
    left = {name: change.of(value) if isinstance(value, Tensor) else value for name, value in state.items()}
    replace_parameter(optimizer, change.old, change.new, left)
