"""Per-example held-out losses of a model, from a loader and a loss. Knows nothing of growth."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from esper.errors import EvaluateError
from esper.growth.batch import move

PerExample = Callable[[nn.Module, Any], Tensor]

ADVICE = "give per_example=lambda model, batch: ... in the place of the loss"
"""Right for ``held_out`` as for a ``Task``."""


class HeldOut:
    """Callable that returns the loss of every held-out example, shape ``(N,)``, differentiable when gradients are on.

    The batches are drawn from the loader once, at the first call, and kept: the two arms of a paired comparison must
    see the same examples in the same order, and a loader's augmentation must not differ between them.
    """

    def __init__(self, loader: Iterable[Any], per_example: PerExample) -> None:
        self._loader = loader
        self._per_example = per_example
        self._batches: list[Any] | None = None

    def __call__(self, model: nn.Module) -> Tensor:
        """Losses of all held-out examples under ``model``, in the loader's order. Raises EvaluateError."""
        return torch.cat([losses for losses in self.batches(model)])

    def batches(self, model: nn.Module) -> Iterable[Tensor]:
        """The same losses, batch by batch, so that a backward pass needs the memory of one batch only."""
        if self._batches is None:
            self._batches = _read(self._loader)
            if not self._batches:
                raise EvaluateError("the held-out loader is empty: hold some rows of the training set out")
        device = next((p.device for p in model.parameters()), torch.device("cpu"))
        for batch in self._batches:
            losses = self._per_example(model, move(batch, device))
            if losses.dim() != 1:
                raise EvaluateError(
                    f"held-out losses have shape {tuple(losses.shape)}; one loss per example, shape (N,), is needed: "
                    f"{ADVICE}, with reduction='none'"
                )
            yield losses


def held_out(
    loader: Iterable[Any], loss: Callable[..., Tensor] | None = None, *, per_example: PerExample | None = None
) -> HeldOut:
    """Per-example held-out losses for `esper.Grower`.

    Args:
        loader: batches ``(inputs, targets)`` that are never trained on; several inputs are allowed, the last item is
            the target.
        loss: a function that takes ``reduction="none"`` (all of ``torch.nn.functional`` do) or a loss module, which is
            copied with that reduction. Non-batch dimensions are averaged.
        per_example: anything else, ``(model, batch) -> losses`` of shape ``(N,)``; excludes ``loss``.

    Raises:
        EvaluateError: neither or both of ``loss`` and ``per_example`` are given, or the loss cannot say its value per
            example.
    """
    if (loss is None) == (per_example is None):
        raise EvaluateError(
            "give held_out(loader, loss) or held_out(loader, per_example=...), one of the two"
        )
    return HeldOut(loader, per_example if per_example is not None else _from_loss(loss))


def _read(loader: Iterable[Any]) -> list[Any]:
    """All batches; a generator that the loader may share with the training loader stays where it is."""
    generator = loader.generator if isinstance(loader, DataLoader) else None
    if generator is None:
        return list(loader)
    state = generator.get_state()
    batches = list(loader)
    generator.set_state(state)
    return batches


def _from_loss(loss: Callable[..., Tensor] | None) -> PerExample:
    assert loss is not None
    unreduced = _unreduced(loss)

    def per_example(model: nn.Module, batch: Any) -> Tensor:
        *inputs, target = _split(batch)
        output = model(*inputs)
        if not isinstance(output, Tensor):
            raise EvaluateError(f"the model returns {type(output).__name__}, not a tensor: {ADVICE}")
        return _average(unreduced(output, target), len(target))

    return per_example


def _unreduced(loss: Callable[..., Tensor]) -> Callable[..., Tensor]:
    if isinstance(loss, nn.Module):
        if "reduction" not in vars(loss):
            raise EvaluateError(f"{type(loss).__name__} has no 'reduction': {ADVICE}, one loss per example")
        module = copy.deepcopy(loss)
        vars(module)["reduction"] = "none"
        return module
    if "reduction" not in inspect.signature(loss).parameters:
        raise EvaluateError(f"the loss function takes no 'reduction': {ADVICE}, one loss per example")
    return lambda output, target: loss(output, target, reduction="none")


def _split(batch: Any) -> Sequence[Any]:
    if isinstance(batch, (tuple, list)) and len(batch) >= 2:
        return batch
    raise EvaluateError(f"a held-out batch is not (inputs, targets): {ADVICE}")


def _average(losses: Tensor, count: int) -> Tensor:
    if losses.dim() == 0 or losses.shape[0] != count:
        raise EvaluateError(
            f"the loss has shape {tuple(losses.shape)} for {count} examples: it must keep the batch dimension; "
            f"{ADVICE}, with one loss per example"
        )
    return losses.reshape(count, -1).mean(dim=1)
