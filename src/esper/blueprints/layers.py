"""Pieces that every family shares: linear maps per kind, zero projections, tracing. Knows no blueprint."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn

from esper.surgery.site import Kind, Port

Layer = TypeVar("Layer", nn.Linear, nn.Conv1d, nn.Conv2d, nn.Module)


def pointwise(kind: Kind, num_in: int, num_out: int, *, bias: bool = True) -> nn.Module:
    """A linear map of the width alone: over the last dimension, or of kernel 1 over channels."""
    if kind == "signal":
        return nn.Conv1d(num_in, num_out, 1, bias=bias)
    if kind == "image":
        return nn.Conv2d(num_in, num_out, 1, bias=bias)
    return nn.Linear(num_in, num_out, bias=bias)


def zeroed(layer: Layer) -> Layer:
    """The same layer with every parameter exactly zero: the last projection of a fresh graft."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


def chain(*layers: nn.Module | None) -> nn.Sequential:
    """The layers one after another; ``None`` stands for nothing to do."""
    return nn.Sequential(*(layer for layer in layers if layer is not None))


def traced(module: nn.Module) -> nn.Module:
    """The same computation as a graph of torch layers: no class of ours is left in the user's network."""
    graph = torch.fx.Tracer().trace(module)
    for node in graph.nodes:
        node.type = None  # postponed annotations are strings, and a graph that holds them cannot be pickled
    return torch.fx.GraphModule(module, graph)


class _TimeLast(nn.Module):
    """Runs ``body`` on ``[B, D, T]``; the target has its features last, or no time at all."""

    def __init__(self, body: nn.Module, source: Port, target: Port) -> None:
        super().__init__()
        self.body = body
        self.time_first = source.batch_dim == 1
        self.restore = target.kind == "sequence"

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.body(x.permute(1, 2, 0) if self.time_first else x.transpose(1, 2))
        if not self.restore:
            return y
        return y.permute(2, 0, 1) if self.time_first else y.transpose(1, 2)


def time_last(body: nn.Module, source: Port, target: Port) -> nn.Module:
    """``body`` of channels-first layers, applied to a sequence as its batch and features lie."""
    return traced(_TimeLast(body, source, target))
