"""AdamW for a few parameters at a time. Does not know what their gradients are of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw


class Moments:
    """What AdamW (Loshchilov and Hutter, arXiv:1711.05101) remembers of some parameters, and its step.

    The same as ``torch.optim.AdamW(parameters, lr=lr, fused=True)``, to the bit. A step costs little beside the
    arithmetic, so that each of many modules can have one of its own and step while no other one has gradients.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], *, lr: float) -> None:
        self._parameters = list(parameters)
        self._lr = lr
        self._means = [torch.zeros_like(p) for p in self._parameters]
        self._squares = [torch.zeros_like(p) for p in self._parameters]
        self._steps = [torch.zeros((), dtype=torch.float32, device=p.device) for p in self._parameters]

    @torch.no_grad()
    def step(self) -> None:
        """Move every parameter that has a gradient, and clear that."""
        places = zip(self._parameters, self._means, self._squares, self._steps, strict=True)
        found = [(p, p.grad, *own) for p, *own in places if p.grad is not None]
        if not found:
            return
        parameters, gradients, means, squares, steps = (list(column) for column in zip(*found, strict=True))
        adamw(
            parameters,
            gradients,
            means,
            squares,
            [],
            steps,
            fused=True,
            amsgrad=False,
            beta1=0.9,
            beta2=0.999,
            lr=self._lr,
            weight_decay=1e-2,
            eps=1e-8,
            maximize=False,
        )
        for parameter in parameters:
            parameter.grad = None

    def state_dict(self) -> dict[str, Any]:
        """Both moments and the number of steps of every parameter."""
        return {"means": self._means, "squares": self._squares, "steps": self._steps}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict` of the same parameters."""
        for name, own in self.state_dict().items():
            _fill(own, state[name])


def _fill(own: list[Tensor], values: Iterable[Tensor]) -> None:
    for tensor, value in zip(own, values, strict=True):
        tensor.copy_(value)
