"""Exact counts of what a module costs: parameters and multiply-adds. Knows no recipe."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from esper.surgery.site import Port


@dataclass(frozen=True)
class Cost:
    """``params``: number of parameters; ``macs``: multiply-adds of one example's forward pass."""

    params: int
    macs: int


def count(module: nn.Module, source: Port) -> Cost:
    """Cost of a module that lives on the meta device, for one example shaped like ``source``.

    Multiply-adds are those of matrix products and convolutions, as PyTorch's flop counter sees them (two
    flops each); element-wise work and pooling count nothing. On the meta device recurrent layers and
    attention fall apart into plain matrix products, so none of them is missed. Two examples are run, since
    an instance normalisation refuses to train on one.
    """
    params = sum(parameter.numel() for parameter in module.parameters())
    for norm in module.modules():
        if isinstance(norm, nn.modules.batchnorm._NormBase):
            norm.eval()  # one without momentum asks in training how many batches it has seen
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(torch.empty(source.batched(2), device="meta"))
    return Cost(params=params, macs=counter.get_total_flops() // 4)
