"""The loss of every example by itself, from a loop that knows the loss of a batch only. Knows no library."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from esper.errors import EvaluateError
from esper.growth.batch import with_tensors

BatchLoss = Callable[[nn.Module, Any], Tensor]


def one_by_one(model: nn.Module, batch: Any, loss: BatchLoss) -> Tensor:
    """``loss(model, example)`` of every example of a batch, shape ``(N,)``."""
    return torch.stack([loss(model, example).reshape(()) for example in examples_of(batch)])


def examples_of(batch: Any) -> Iterator[Any]:
    """Batches of one example; what has another length than the first tensor of the batch is part of each.

    Raises EvaluateError when there is no tensor to tell the number of examples by.
    """
    num_examples = _num_examples(batch)

    def only(index: int) -> Callable[[Tensor], Tensor]:
        return lambda t: t[index : index + 1] if t.dim() and len(t) == num_examples else t

    return (with_tensors(batch, only(index)) for index in range(num_examples))


def _num_examples(batch: Any) -> int:
    sizes: list[int] = []

    def note(tensor: Tensor) -> Tensor:
        if tensor.dim():
            sizes.append(len(tensor))
        return tensor

    with_tensors(batch, note)
    if not sizes:
        raise EvaluateError(
            "a held-out batch holds no tensor to tell its examples by: give the callback evaluate=esper.held_out("
            "loader, per_example=lambda model, batch: ...)"
        )
    return sizes[0]
