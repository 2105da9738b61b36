"""Which examples a step trains on. A function of seed and step alone, so that resuming needs no state."""

from __future__ import annotations

import torch
from torch import Tensor

_EPOCHS_PER_SEED = 1_000_003  # a prime: seeds and epochs of one project never meet in one stream


class Order:
    """Shuffles ``num_rows`` anew every epoch and cuts them into full batches.

    The rest of an epoch is left out.
    """

    def __init__(self, num_rows: int, batch_size: int, *, seed: int) -> None:
        self._num_rows = num_rows
        self._seed = seed
        self._epoch = -1
        self._permutation = torch.empty(0, dtype=torch.long)
        self.batch_size = min(batch_size, num_rows)
        self.steps_per_epoch = num_rows // self.batch_size

    def batch(self, step: int) -> Tensor:
        """Row numbers ``(batch_size,)`` of optimizer step ``step``, counted from 1."""
        epoch, position = divmod(step - 1, self.steps_per_epoch)
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed(self._seed * _EPOCHS_PER_SEED + epoch)
            self._permutation = torch.randperm(self._num_rows, generator=generator)
            self._epoch = epoch
        return self._permutation[position * self.batch_size : (position + 1) * self.batch_size]
