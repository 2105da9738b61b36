"""Three disjoint sets of examples: to train on, to judge growth by, to read once. Knows no model."""

from __future__ import annotations

import hashlib
from collections.abc import Sized
from dataclasses import dataclass
from typing import Any, Self, cast

import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from esper.errors import DataError, RunError

Rows = tuple[Tensor, ...]
"""Inputs first, the target last; all have one entry per example in their first dimension."""


class SealedRows:
    """Rows that can be read once: no choice can be made on them and tried again."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._opened = False

    def __len__(self) -> int:
        return len(self._rows[-1])

    def open(self) -> Rows:
        """The rows. Raises ``RunError`` when they have been read before."""
        if self._opened:
            raise RunError("the test set has been read already; a second look would make its score worthless")
        self._opened = True
        return self._rows

    def digest(self) -> bytes:
        """SHA-256 of the rows; tells nothing of what they are."""
        return _digest(self._rows)


@dataclass(frozen=True)
class Data:
    """The examples of a task: ``train`` moves weights, ``held_out`` judges growth, ``test`` is read once."""

    train: Rows
    held_out: Rows
    test: SealedRows

    def __post_init__(self) -> None:
        for name, size in self.sizes.items():
            if size == 0:
                raise DataError(f"the {name} set is empty; give more rows or other fractions to Data.split")

    @classmethod
    def of(cls, train: Any, held_out: Any, test: Any) -> Self:
        """Three sets that are ready: tensors ``(x, y)``, or a ``Dataset``, each."""
        return cls(as_rows(train), as_rows(held_out), SealedRows(as_rows(test)))

    @classmethod
    def split(cls, rows: Any, *, held_out: float = 0.125, test: float = 0.2, seed: int = 0) -> Self:
        """Shuffle ``rows`` with ``seed`` and cut: ``test`` is a share of all, ``held_out`` of the rest."""
        whole = as_rows(rows)
        order = torch.randperm(len(whole[-1]), generator=torch.Generator().manual_seed(seed))
        num_test = round(test * len(order))
        num_held_out = round(held_out * (len(order) - num_test))
        cuts = (num_test, num_held_out, len(order) - num_test - num_held_out)
        in_test, in_held_out, in_train = order.split(cuts)
        return cls(take(whole, in_train), take(whole, in_held_out), SealedRows(take(whole, in_test)))

    @property
    def sizes(self) -> dict[str, int]:
        """Number of examples of each set."""
        return {"training": len(self.train[-1]), "held-out": len(self.held_out[-1]), "test": len(self.test)}

    def sha256(self) -> str:
        """One hash of all three sets: a run is only resumed on the data that it began with."""
        parts = (_digest(self.train), _digest(self.held_out), self.test.digest())
        return hashlib.sha256(b"".join(parts)).hexdigest()


def as_rows(source: Any) -> Rows:
    """Rows from tensors ``(x, ..., y)`` or from a map-style ``Dataset``, which is read once into memory.

    Raises ``DataError`` when there are fewer than two tensors or they differ in the number of examples.
    """
    if isinstance(source, Dataset):
        source = _collate(source)
    if not isinstance(source, (tuple, list)) or not all(isinstance(part, Tensor) for part in source):
        raise DataError(
            f"data must be tensors (x, y) or a Dataset of such pairs, not {type(source).__name__}"
        )
    lengths = [len(part) if part.dim() else 0 for part in source]
    if len(source) < 2 or len(set(lengths)) != 1:
        raise DataError(f"data need inputs and a target of equal length; these have {lengths or 'no'} rows")
    return tuple(source)


def take(rows: Rows, index: Tensor | slice) -> Rows:
    """The rows at ``index``, in its order."""
    return tuple(part[index] for part in rows)


def _collate(source: Dataset[Any]) -> Any:
    if not isinstance(source, Sized):
        raise DataError(
            f"{type(source).__name__} has no length; Esper needs a Dataset with __len__ and __getitem__"
        )
    size = len(source)
    if not size:
        raise DataError(f"{type(source).__name__} is empty")
    return default_collate([cast(Any, source)[index] for index in range(size)])


def _digest(rows: Rows) -> bytes:
    total = hashlib.sha256()
    for part in rows:
        total.update(f"{part.dtype} {tuple(part.shape)} ".encode())
        total.update(part.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return total.digest()
