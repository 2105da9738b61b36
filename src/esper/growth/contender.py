"""A graft that trains on the side of the living model, on the real loss. Does not judge itself."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch.optim import Optimizer

from esper.growth.host import Closure, Host, Losses
from esper.growth.optimizers import assign, follow, sibling
from esper.signals.shadow import empty
from esper.surgery.graft import Graft
from esper.surgery.random_streams import streams_kept


class Contender:
    """Grafts at one exit that train together, with an optimizer of the host's kind, behind the host's back.

    ``exclusive`` means that they do so in place of the exit's own path.
    """

    def __init__(
        self, name: str, grafts: Sequence[Graft], host: Host, optimizer: Optimizer, *, exclusive: bool = False
    ) -> None:
        self.name = name
        self.grafts = tuple(grafts)
        self.exclusive = exclusive
        self._host = host
        self._live = optimizer
        exit_module = host.model.get_submodule(self.grafts[0].site.exit)
        groups = [assign(optimizer, exit_module, graft) for graft in self.grafts]
        self.optimizer = sibling(
            optimizer, [[p for own in group for p in own] for group in zip(*groups, strict=True)]
        )
        self._parameters = [p for graft in self.grafts for p in graft.parameters()]
        self.failed: str | None = None

    def step(self, closure: Closure) -> None:
        """One update on the batch that the host has just trained on.

        A loss that is not finite ends the contender, and so do parameter groups that have come or gone meanwhile. A
        gradient scaler that overflows costs this update only.
        """
        if self.failed:
            return
        if len(self.optimizer.param_groups) != len(self._live.param_groups):
            self.failed = "the optimizer was given other parameter groups during its trial"
            return
        loss = self._host.gradients(closure, self.grafts, exclusive=self.exclusive)
        if not math.isfinite(loss):
            self.failed = "its loss became infinite or undefined"
            return
        if all(p.grad is None for p in self._parameters):
            return
        follow(self.optimizer, self._live)
        with streams_kept():
            self.optimizer.step()
        for parameter in self._parameters:
            parameter.grad = None

    def losses(self) -> Losses:
        """Held-out loss of every example with the grafts switched on."""
        return self._host.losses(self.grafts, exclusive=self.exclusive)

    def dismiss(self) -> None:
        """Give the grafts' memory back; nothing can be asked of it any more."""
        for graft in self.grafts:
            empty(graft)

    def state_dict(self) -> dict[str, Any]:
        """The grafts' tensors and the trial optimizer's state."""
        return {
            "grafts": [graft.state_dict() for graft in self.grafts],
            "optimizer": self.optimizer.state_dict(),
            "failed": self.failed,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict` of a contender with the same grafts."""
        for graft, own in zip(self.grafts, state["grafts"], strict=True):
            graft.load_state_dict(own)
        with torch.no_grad():
            self.optimizer.load_state_dict(state["optimizer"])
        self.failed = state["failed"]
