"""Losses of single examples from the output of a whole batch, wherever that is proved to give the model's own.

Knows the shapes of outputs, no library: an output is a mapping with ``logits``, a batch one with ``labels``.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from esper.training.callbacks.examples import examples_of, one_by_one

IGNORED = -100
Form = Callable[[Tensor, Tensor], Tensor | None]
LossAndOutput = Callable[[nn.Module, Any], tuple[Tensor, Any]]


def classes(logits: Tensor, labels: Tensor) -> Tensor | None:
    """One class an example: ``(N, C)`` and ``(N,)``."""
    if labels.is_floating_point() or logits.dim() != 2 or labels.shape != logits.shape[:1]:
        return None
    return F.cross_entropy(logits, labels, reduction="none")


def tokens(logits: Tensor, labels: Tensor) -> Tensor | None:
    """One class a token, ``(N, L, C)`` and ``(N, L)``: the mean over an example's tokens that count."""
    if labels.is_floating_point() or logits.dim() != 3 or labels.shape != logits.shape[:2]:
        return None
    losses = F.cross_entropy(
        logits.flatten(0, 1).float(), labels.flatten(), reduction="none", ignore_index=IGNORED
    )
    count = (labels != IGNORED).sum(1).clamp(min=1)
    return losses.view_as(labels).sum(1) / count


def next_tokens(logits: Tensor, labels: Tensor) -> Tensor | None:
    """As `tokens`, each predicted from those before it."""
    return None if labels.dim() != 2 else tokens(logits[:, :-1], labels[:, 1:])


def numbers(logits: Tensor, labels: Tensor) -> Tensor | None:
    """Squared error of numbers, as many as there are logits."""
    if not labels.is_floating_point() or logits.numel() != labels.numel():
        return None
    return F.mse_loss(logits.flatten(1).float(), labels.view(len(labels), -1).float(), reduction="none").mean(
        1
    )


def yes_or_no(logits: Tensor, labels: Tensor) -> Tensor | None:
    """Binary cross-entropy of several labels an example, ``(N, C)`` both."""
    if not labels.is_floating_point() or logits.shape != labels.shape:
        return None
    return F.binary_cross_entropy_with_logits(logits, labels, reduction="none").flatten(1).mean(1)


FORMS: tuple[Form, ...] = (classes, next_tokens, tokens, numbers, yes_or_no)


class Losses:
    """``(model, batch) -> (N,)``: the loss of every example by itself, as ``loss`` gives it for a batch of one.

    The first batch is taken example by example. Where one of the `FORMS` makes the same numbers of the outputs, it
    serves from then on, for whole batches; where none does, all are taken example by example, and a warning says so.
    """

    def __init__(self, loss: LossAndOutput) -> None:
        self._loss = loss
        self._form: Form | None = None
        self._proved = False

    def __call__(self, model: nn.Module, batch: Any) -> Tensor:
        """Losses of shape ``(N,)``, differentiable when gradients are on."""
        if not self._proved:
            self._prove(model, batch)
        if self._form is None:
            return one_by_one(model, batch, self._scalar)
        losses = _shaped(self._form, self._loss(model, batch)[1], batch)
        assert losses is not None
        return losses

    def _scalar(self, model: nn.Module, example: Any) -> Tensor:
        return self._loss(model, example)[0]

    @torch.no_grad()
    def _prove(self, model: nn.Module, batch: Any) -> None:
        self._loss(model, batch)  # whoever watches the first call of the model sees a whole batch
        seen = [(*self._loss(model, example), example) for example in examples_of(batch)]
        self._form = next((form for form in FORMS if all(_gives(form, *one) for one in seen)), None)
        if self._form is None:
            warnings.warn(
                "held-out losses are taken one example at a time, since the loss of this model is none of the usual "
                "ones: give evaluate=esper.held_out(loader, per_example=...) to have it faster",
                stacklevel=2,
            )
        self._proved = True


def _gives(form: Form, loss: Tensor, output: Any, example: Any) -> bool:
    """Whether it makes of the output of one example what the model's own loss is, but for rounding."""
    found = _shaped(form, output, example)
    return found is not None and torch.allclose(found.float(), loss.reshape(1).float(), rtol=1e-4, atol=1e-6)


def _shaped(form: Form, output: Any, batch: Any) -> Tensor | None:
    if not isinstance(output, Mapping) or not isinstance(batch, Mapping):
        return None
    logits, labels = output.get("logits"), batch.get("labels")
    if not isinstance(logits, Tensor) or not isinstance(labels, Tensor):
        return None
    return form(logits, labels)
