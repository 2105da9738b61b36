"""What to train: a model, data and a loss, with the settings that a run needs. Knows nothing of growth."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from esper.errors import ConfigurationError, DataError, EsperError
from esper.growth.budget import Budget
from esper.growth.held_out import HeldOut, PerExample, held_out
from esper.training.data import Data, Rows, take
from esper.training.metric import ACCURACY, RMSE, Metric
from esper.training.network import evaluating
from esper.training.preparation import Preparation

ROWS_PER_EVALUATION = 1_000


def adamw(parameters: Iterator[nn.Parameter]) -> torch.optim.Optimizer:
    """AdamW with learning rate 2e-3 and weight decay .01."""
    return torch.optim.AdamW(parameters, lr=2e-3, weight_decay=0.01)


def constant_then_cosine(optimizer: torch.optim.Optimizer, total_steps: int) -> LRScheduler:
    """The full learning rate for the first half of the steps, then a half cosine down to nothing."""

    def factor(step: int) -> float:
        done = max(0.0, 2 * step / total_steps - 1)
        return 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))

    return LambdaLR(optimizer, factor)


@dataclass(frozen=True)
class Task:
    """A model, data and a loss; everything else has a default.

    Args:
        model: a module (it is copied), or a function without arguments that builds one.
        data: ``Data`` (three sets), or tensors ``(x, y)`` or a ``Dataset``, which ``Data.split`` then cuts.
        loss: like ``torch.nn.functional.cross_entropy``: ``(output, target)`` to a mean, with ``reduction=``.
        per_example: instead of ``loss``: ``(model, batch)`` to one loss per example, shape ``(N,)``.
        metric: ``None`` takes accuracy for integer targets and the root mean squared error for others.
        make_optimizer: from parameters to an optimizer.
        make_scheduler: from optimizer and number of steps to a scheduler that is stepped after every step.
        budget: how large growth may make the model.
        references: test scores of other models on the same split, by name; asked for once, at the end.
        preparation: how rows of a table become tensors; kept with the run for ``esper predict``.
    """

    model: nn.Module | Callable[[], nn.Module]
    data: Any
    loss: Callable[..., Tensor] | None = None
    name: str = "task"
    per_example: PerExample | None = None
    metric: Metric | None = None
    batch_size: int = 100
    total_steps: int = 2_000
    make_optimizer: Callable[[Iterator[nn.Parameter]], torch.optim.Optimizer] = adamw
    make_scheduler: Callable[[torch.optim.Optimizer, int], LRScheduler] = constant_then_cosine
    budget: Budget = Budget()  # noqa: RUF009 - frozen
    references: Callable[[], Mapping[str, float]] | None = None
    preparation: Preparation | None = None

    def __post_init__(self) -> None:
        if (self.loss is None) == (self.per_example is None):
            raise ConfigurationError("a Task needs loss or per_example, one of the two")
        if self.batch_size < 1 or self.total_steps < 1:
            raise ConfigurationError("batch_size and total_steps of a Task must be at least 1")

    @cached_property
    def sets(self) -> Data:
        """The three sets of examples."""
        return self.data if isinstance(self.data, Data) else Data.split(self.data)

    @cached_property
    def score(self) -> Metric | None:
        """The metric; ``None`` where only the loss is known, as with ``per_example``."""
        if self.metric is not None or self.loss is None:
            return self.metric
        return RMSE if self.sets.train[-1].is_floating_point() else ACCURACY

    def make_model(self, seed: int) -> nn.Module:
        """A fresh model, its weights drawn with ``seed``; global random state is left as it is."""
        if isinstance(self.model, nn.Module):
            return copy.deepcopy(self.model)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = self.model()
        if not isinstance(model, nn.Module):
            raise DataError(
                f"the model function of task {self.name} returned {type(model).__name__}, not a Module"
            )
        return model

    def batch_loss(self, model: nn.Module, batch: Rows) -> Tensor:
        """Mean loss of one batch, a scalar."""
        if self.loss is None:
            assert self.per_example is not None
            return self.per_example(model, batch).mean()
        result: Tensor = self.loss(model(*batch[:-1]), batch[-1])
        return result

    def check_shapes(self, model: nn.Module) -> None:
        """Raises ``DataError`` when model and loss cannot take two examples, or the loss would compare every output
        with every target, as ``mse_loss`` does with outputs ``(N, 1)`` and targets ``(N,)``.
        """
        batch = take(self.sets.held_out, slice(0, 2))
        with evaluating(model), warnings.catch_warnings():
            warnings.filterwarnings("error", message="Using a target size")
            try:
                self.batch_loss(model, batch)
            except EsperError:
                raise
            except UserWarning as error:
                raise DataError(
                    f"the loss is given outputs and targets of different shapes; targets are {tuple(batch[-1].shape)} "
                    f"for two examples: give them the shape of the outputs, as with y.unsqueeze(1) ({error})"
                ) from error
            except Exception as error:
                raise DataError(self._misfit(error, batch)) from error

    def _misfit(self, error: Exception, batch: Rows) -> str:
        """The user's model and loss may raise anything."""
        shown = [f"{tuple(part.shape)} {str(part.dtype).removeprefix('torch.')}" for part in batch]
        return (
            f"model or loss of task {self.name} cannot take two of its examples, inputs {', '.join(shown[:-1])}, "
            f"targets {shown[-1]}: {type(error).__name__}: {' '.join(str(error).split())}"
        )

    def evaluator(self, rows: Rows) -> HeldOut:
        """One loss per example of ``rows``, as a function of the model."""
        return held_out(list(_chunks(rows)), self.loss, per_example=self.per_example)

    def evaluate(self, model: nn.Module, rows: Rows) -> tuple[float, float | None]:
        """Mean loss and metric of ``model`` on ``rows``, in eval mode; training flags are put back."""
        with evaluating(model):
            loss = float(self.evaluator(rows)(model).double().mean())
            return loss, self._measure(model, rows)

    def _measure(self, model: nn.Module, rows: Rows) -> float | None:
        if self.score is None:
            return None
        outputs = torch.cat([model(*chunk[:-1]) for chunk in _chunks(rows)])
        return self.score.measure(outputs, rows[-1])


def _chunks(rows: Rows) -> Iterator[Rows]:
    for start in range(0, len(rows[-1]), ROWS_PER_EVALUATION):
        yield take(rows, slice(start, start + ROWS_PER_EVALUATION))
