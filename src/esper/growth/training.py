"""What is trained, as the user handed it over, and who else trains it. Does nothing with it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import nn
from torch.amp import GradScaler
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel

from esper.growth.ranks import Alone, Ranks


class Stateful(Protocol):
    """A scheduler, a scaler, or anything else with a state dict."""

    def state_dict(self) -> dict[str, Any]:
        """The whole state, as plain data and tensors."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> Any:
        """Continue from ``state_dict``."""


@dataclass(frozen=True)
class Training:
    """What is trained: the model, its optimizer, and what moves along with them."""

    model: nn.Module
    optimizer: Optimizer
    companions: tuple[Stateful, ...] = ()
    averaged: tuple[nn.Module, ...] = ()
    ranks: Ranks = field(default_factory=Alone)

    @property
    def scale(self) -> float:
        """What the loss is multiplied by before the backward pass, by a gradient scaler; 1.0 without one."""
        return next((float(c.get_scale()) for c in self.companions if isinstance(c, GradScaler)), 1.0)


def inner(averaged: nn.Module) -> nn.Module:
    """The model inside an averaged copy."""
    return averaged.module if isinstance(averaged, AveragedModel) else averaged
