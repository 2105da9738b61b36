"""Lets an optimizer go on with parameters that widening grafts have become a part of. Does not know why they have."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from esper.growth.optimizers import dismiss, replace_parameter
from esper.surgery.widening import Enlarged, widen

CORRECTED = {"exp_avg": 0, "exp_avg_sq": 1, "max_exp_avg_sq": 1}
"""Averages that Adam and its kin divide by ``1 - beta ** step``, and which of the betas is theirs."""


def enlarge(model: nn.Module, places: Iterable[Sequence[str | int]], optimizer: Optimizer | None) -> None:
    """Melt the grafts at ``places`` of ``model``, and let ``optimizer`` go on with what has become larger."""
    enlarged = widen(model, places)
    if optimizer is not None:
        for change in enlarged:
            _take_place(optimizer, change)


def _take_place(optimizer: Optimizer, change: Enlarged) -> None:
    """The enlarged parameter stands where the old one stood, of its age, with the averages of both."""
    own, more = optimizer.state.get(change.old, {}), optimizer.state.get(change.piece, {})
    betas = next(
        (g.get("betas") for g in optimizer.param_groups if any(p is change.old for p in g["params"])), None
    )
    state = {name: _joined(name, own, more, change, betas) for name in own}
    replace_parameter(optimizer, change.old, change.new, state)
    dismiss(optimizer, [change.piece])


def _joined(
    name: str, own: dict[str, Any], more: dict[str, Any], change: Enlarged, betas: tuple[float, ...] | None
) -> Any:
    value, other = own[name], more.get(name)
    if not isinstance(value, Tensor) or value.dim() != change.old.dim():
        return value
    shape = _like(value, change)
    piece = value.new_zeros(shape) if not isinstance(other, Tensor) or other.shape != shape else other
    if betas is not None and name in CORRECTED and "step" in own and "step" in more:
        beta = betas[CORRECTED[name]]
        piece = piece * _correction(beta, own["step"]) / _correction(beta, more["step"])
    return change.joint(value, piece)


def _like(value: Tensor, change: Enlarged) -> tuple[int, ...]:
    """Shape of the piece's share of a state: rows or columns of it may have been summed up."""
    turned = change.joint.turned
    piece = change.piece.shape[::-1] if turned else change.piece.shape
    sizes = zip(value.shape, change.old.shape, piece, strict=True)
    shape = tuple(1 if size == 1 != old else more for size, old, more in sizes)
    return shape[::-1] if turned else shape


def _correction(beta: float, step: Any) -> float:
    return 1.0 - beta ** float(step) if float(step) > 0 else 1.0
