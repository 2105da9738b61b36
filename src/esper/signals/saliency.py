"""How much each unit of a block matters to the loss, to first order. Does not know what is done about it.

Molchanov et al. 2017 (arXiv:1611.06440): without a unit the loss of an example changes by about the sum over positions
of its output times the gradient of the loss with respect to it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from esper.surgery.block import Block
from esper.surgery.structure import first_input

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d)


class Saliency:
    """Adds up over passes what the modules that read units are given; per unit, in the units of the loss."""

    def __init__(self, model: nn.Module, blocks: Iterable[Block], *, with_gradients: bool = True) -> None:
        self._model = model
        self._with_gradients = with_gradients
        self.of: dict[Block, Tensor] = {
            block: torch.zeros(block.width, dtype=torch.float64) for block in blocks
        }

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Reads every pass inside the context: forward and backward, or forward alone without gradients."""
        with ExitStack() as stack:
            for block in self.of:
                reader = self._model.get_submodule(block.consumer)
                hook = partial(self._read, block)
                stack.callback(reader.register_forward_pre_hook(hook, with_kwargs=True).remove)
            yield

    def _read(self, block: Block, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        x = first_input(args, kwargs)
        if x is None:
            return
        channels_first = isinstance(module, CONVOLUTIONS)
        if not self._with_gradients:
            self.of[block] += _per_unit(x.detach().abs(), block, channels_first).sum(0)
        elif x.requires_grad:
            x.register_hook(partial(self._multiply, block, x.detach(), channels_first))

    def _multiply(self, block: Block, x: Tensor, channels_first: bool, gradient: Tensor) -> None:
        self.of[block] += _per_unit(x * gradient, block, channels_first).abs().sum(0)


def _per_unit(values: Tensor, block: Block, channels_first: bool) -> Tensor:
    """Sums over the positions of each unit, shape ``(first dimension, units)``, as float64 on the CPU."""
    last = values.movedim(1, -1) if channels_first else values
    units = last.double().reshape(last.shape[0], -1, block.outer, block.width, block.inner)
    return units.sum((1, 2, 4)).cpu()
