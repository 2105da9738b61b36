"""What a score is: a name, a function of outputs and targets, and which way is better. Knows no model."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from esper.errors import DataError


@dataclass(frozen=True)
class Metric:
    """``measure(outputs, targets)`` over all examples at once; ``direction`` says which way is better."""

    name: str
    measure: Callable[[Tensor, Tensor], float]
    direction: Literal["higher", "lower"] = "higher"


def _accuracy(outputs: Tensor, targets: Tensor) -> float:
    return float((outputs.argmax(dim=1) == targets).double().mean())


def _mean_square(outputs: Tensor, targets: Tensor) -> float:
    if outputs.shape != targets.shape:
        shapes = f"{tuple(outputs.shape)} while targets are {tuple(targets.shape)}"
        raise DataError(f"outputs are {shapes}; give the targets the shape of the outputs")
    return float((outputs.double() - targets.double()).square().mean())


def _rmse(outputs: Tensor, targets: Tensor) -> float:
    return math.sqrt(_mean_square(outputs, targets))


def _r2(outputs: Tensor, targets: Tensor) -> float:
    residual = _mean_square(outputs, targets)
    spread = targets.double().var(correction=0)
    return float(1 - residual / spread) if spread > 0 else 0.0


ACCURACY = Metric("accuracy", _accuracy)
"""Share of examples whose largest output (dimension 1) is the target class."""

RMSE = Metric("rmse", _rmse, "lower")
"""Root of the mean squared error, in units of the target."""

R2 = Metric("r2", _r2)
"""Share of the target's variance that the outputs explain; 0 for a constant target."""
