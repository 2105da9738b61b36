"""What the units of a block repeat of each other, from second moments of what they say. Does not know what is done.

A unit can be missed as far as the others, and a constant, say it too: what is left of it, times the weights by which it
is heard, is how much its reader loses. Units are struck off one after another, the one that is missed least first
(backward elimination; He et al. 2017, arXiv:1707.06168, choose channels by what the others can reconstruct).
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

RIDGE = 1e-2
AT_ONCE = 32
"""Of so many parts one is struck off at once, of twice as many two: a wide block would take minutes one by one."""
WIDEST = 1_024
"""Blocks of more units are left alone: moments and their inverse grow with the square of their number."""
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d)


class Moments:
    """Second moments of the units of each block and a constant, ``(width + 1, width + 1)``, over passes watched."""

    def __init__(self, model: nn.Module, blocks: Iterable[Block]) -> None:
        self._model = model
        self.sums = {block: torch.zeros(block.width + 1, block.width + 1).double() for block in blocks}

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Reads what the consumers are given inside the context."""
        with ExitStack() as stack:
            for block in self.sums:
                reader = self._model.get_submodule(block.consumer)
                stack.callback(
                    reader.register_forward_pre_hook(partial(self._read, block), with_kwargs=True).remove
                )
            yield

    def of(self, block: Block) -> Tensor:
        """The mean over all rows that were seen."""
        sums = self.sums[block]
        return sums / sums[-1, -1].clamp_min(1.0)

    @torch.no_grad()
    def _read(self, block: Block, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        x = first_input(args, kwargs)
        if x is None:
            return
        last = x.movedim(1, -1) if isinstance(module, CONVOLUTIONS) else x
        units = (
            last.reshape(-1, block.outer, block.width, block.inner).movedim(2, -1).reshape(-1, block.width)
        )
        rows = torch.cat([units.double(), torch.ones(len(units), 1).to(units).double()], 1)
        if bool(rows.isfinite().all()):
            self.sums[block] += (rows.T @ rows).cpu()


def elimination(moments: Tensor, loudness: Tensor, parts: Tensor) -> list[tuple[float, int]]:
    """Parts in the order in which they are struck off, each with what its reader has lost by then at the most.

    ``loudness`` is the norm of the weights that read each unit; ``parts`` holds units by number, one row a part.
    """
    ridge = _ridge(moments)
    inverse = torch.linalg.inv(moments + ridge * torch.eye(len(moments)).double())
    left, lost, found = torch.ones(len(parts), dtype=torch.bool), 0.0, list[tuple[float, int]]()
    while left.any():
        rest = (1.0 / inverse.diagonal()[:-1] - ridge).clamp_min(0.0) * loudness.double() ** 2
        alone = rest[parts].sum(1).masked_fill(~left, torch.inf)
        next_ones = alone.argsort(stable=True)[: max(1, int(left.sum()) // AT_ONCE)]
        for part in next_ones.tolist():
            lost = max(lost, float(alone[part]) ** 0.5)
            found.append((lost, part))
        left[next_ones] = False
        inverse = _struck_off(inverse, parts[next_ones].flatten())
    return found


def shares(moments: Tensor, gone: Tensor, *, constant: bool) -> Tensor:
    """How the units that stay say what those that go said, shape ``(units that stay + 1, gone)``.

    The last row is the constant, zero unless there may be one.
    """
    stay = torch.ones(len(moments), dtype=torch.bool)
    stay[gone] = False
    stay[-1] = constant
    own = moments[stay][:, stay]
    found = torch.linalg.solve(own + _ridge(moments) * torch.eye(len(own)).double(), moments[stay][:, gone])
    return found if constant else torch.cat([found, torch.zeros(1, len(gone)).double()])


def _struck_off(inverse: Tensor, units: Tensor) -> Tensor:
    """The inverse of the moments without ``units``; in their places stands the identity."""
    own = inverse[units][:, units]
    inverse = inverse - inverse[:, units] @ torch.linalg.solve(own, inverse[units])
    inverse[units, units] = 1.0
    return inverse


def _ridge(moments: Tensor) -> float:
    return max(RIDGE * float(moments.diagonal()[:-1].mean()), 1e-12)
