"""The loss of every example by itself, from a loop that knows the loss of a batch only. Knows no library."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from esper.errors import EvaluateError
from esper.growth.batch import with_tensors

BatchLoss = Callable[[nn.Module, Any], Tensor]

# Of torch.nn.functional: all that average over a batch unless they are told not to.
REDUCING = {
    function: inspect.signature(function)
    for function in vars(F).values()
    if inspect.isfunction(function) and "reduction" in inspect.signature(function).parameters
}


class Losses:
    """``(model, batch) -> (N,)``: the loss of every example, as ``loss(model, batch)`` gives it for one alone.

    The first batch is taken example by example. Where that is what a loss function of torch, called meanwhile, says of
    the examples of a whole batch before it averages them, it is read there from then on, one pass a batch. Where there
    is no such function all batches are taken example by example, and a warning says so.
    """

    def __init__(self, loss: BatchLoss) -> None:
        self._loss = loss
        self._which: int | None = None
        self._proved = False

    def __call__(self, model: nn.Module, batch: Any) -> Tensor:
        """Losses of shape ``(N,)``, differentiable when gradients are on."""
        if not self._proved:
            self._prove(model, batch)
        if self._which is None:
            return torch.stack([self._loss(model, example).reshape(()) for example in examples_of(batch)])
        return self._unreduced(model, batch)[self._which]

    @torch.no_grad()
    def _prove(self, model: nn.Module, batch: Any) -> None:
        whole = self._unreduced(model, batch)
        alone = [self._looked_at(model, example) for example in examples_of(batch)]
        wanted = torch.stack([example.loss for example in alone])
        fitting = [k for k in range(len(whole)) if all(example.is_said_by(k) for example in alone)]
        self._which = next((k for k in fitting if _in_step(whole[k], wanted)), None)
        if self._which is None:
            warnings.warn(
                "held-out losses are taken one example at a time, since no loss function of torch gives them: give "
                "evaluate=esper.held_out(loader, per_example=...) to have it faster",
                stacklevel=2,
            )
        self._proved = True

    def _unreduced(self, model: nn.Module, batch: Any) -> list[Tensor]:
        seen = _Unreduced(num_examples(batch))
        with seen:
            self._loss(model, batch)
        return seen.losses

    def _looked_at(self, model: nn.Module, example: Any) -> _Alone:
        seen = _Unreduced(1)
        with seen:
            loss = self._loss(model, example)
        return _Alone(loss.reshape(()), seen.losses)


class _Alone(NamedTuple):
    """One example by itself: its loss, and what loss functions of torch said meanwhile."""

    loss: Tensor
    said: list[Tensor]

    def is_said_by(self, which: int) -> bool:
        """Whether the loss is what that function said, but for rounding."""
        return which < len(self.said) and torch.allclose(
            self.said[which].double(), self.loss.reshape(1).double(), rtol=1e-4, atol=1e-6
        )


def _in_step(whole: Tensor, wanted: Tensor) -> bool:
    """Whether each example of a batch is what it is alone, for the most part: low precision depends on the batch."""
    spread = float(wanted.std(correction=0))
    return float((whole - wanted).abs().max()) <= 0.1 * spread + 1e-6


class _Unreduced(TorchFunctionMode):
    """Notes what every loss function called inside says of each of ``count`` examples, before it averages them."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.losses: list[Tensor] = []
        self._count = count

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Call ``func``, and a loss function once more without its average."""
        kwargs = kwargs or {}
        if func in REDUCING:
            self._note(func, args, kwargs)
        return func(*args, **kwargs)

    def _note(self, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        given = REDUCING[func].bind(*args, **kwargs)
        given.arguments.update(size_average=None, reduce=None, reduction="none")
        known = REDUCING[func].parameters
        losses = func(**{name: value for name, value in given.arguments.items() if name in known})
        if losses.numel() % self._count:
            self.losses.append(losses.new_full((self._count,), torch.nan))
            return
        given.apply_defaults()
        counted = _counted(losses, given.arguments).view(self._count, -1)
        kept = losses.reshape(self._count, -1) * counted
        self.losses.append(kept.sum(1) / counted.sum(1).clamp(min=1))


def _counted(losses: Tensor, given: Mapping[str, Any]) -> Tensor:
    """1 where a loss counts, 0 where its target is to be ignored."""
    if "ignore_index" not in given or given["target"].shape != losses.shape:
        return torch.ones_like(losses)
    target: Tensor = given["target"]
    return target.ne(given["ignore_index"]).to(losses.dtype)


def examples_of(batch: Any) -> Iterator[Any]:
    """Batches of one example; what has another length than the first tensor of the batch is part of each.

    Raises EvaluateError when there is no tensor to tell the number of examples by.
    """
    count = num_examples(batch)

    def only(index: int) -> Callable[[Tensor], Tensor]:
        return lambda t: t[index : index + 1] if t.dim() and len(t) == count else t

    return (with_tensors(batch, only(index)) for index in range(count))


def num_examples(batch: Any) -> int:
    """The length of the first tensor in a batch. Raises EvaluateError when there is none."""
    found = next(_lengths(batch), None)
    if found is None:
        raise EvaluateError(
            "a held-out batch holds no tensor to tell its examples by: give the callback evaluate=esper.held_out("
            "loader, per_example=lambda model, batch: ...)"
        )
    return found


def _lengths(batch: Any) -> Iterator[int]:
    if isinstance(batch, Tensor) and batch.dim():
        yield len(batch)
    elif isinstance(batch, (Mapping, tuple, list)):
        items: Iterable[Any] = batch.values() if isinstance(batch, Mapping) else batch
        for item in items:
            yield from _lengths(item)
