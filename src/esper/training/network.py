"""What a network looks like from outside: its layers in the order they run, and its exact size."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from esper.training.data import Rows, take
from esper.training.run import Layer


def layers(model: nn.Module, rows: Rows, *, grafted: frozenset[str] = frozenset()) -> list[Layer]:
    """Leaf modules in the order of their first call on one example.

    ``grafted`` are paths of parts that were grown.
    """
    found: dict[str, Layer] = {}
    handles = []
    for name, module in model.named_modules():
        if not any(module.children()):

            def note(module: nn.Module, _inputs: Any, output: Any, name: str = name) -> None:
                found.setdefault(name, _layer(name, module, output, grafted))

            handles.append(module.register_forward_hook(note))
    try:
        with evaluating(model):
            model(*take(rows, slice(0, 2))[:-1])
    finally:
        for handle in handles:
            handle.remove()
    return list(found.values())


def num_params(model: nn.Module) -> int:
    """Number of trainable values; shared ones count once."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def num_macs(model: nn.Module, rows: Rows) -> int:
    """Multiply-adds of one example's forward pass, as PyTorch's flop counter sees them (two flops each)."""
    with evaluating(model), FlopCounterMode(display=False) as counter:
        model(*take(rows, slice(0, 1))[:-1])
    return int(counter.get_total_flops()) // 2


def _layer(name: str, module: nn.Module, output: Any, grafted: frozenset[str]) -> Layer:
    shape = list(output.shape[1:]) if isinstance(output, Tensor) else []
    is_graft = any(name == path or name.startswith(f"{path}.") for path in grafted)
    params = sum(parameter.numel() for parameter in module.parameters())
    return Layer(
        name=name, type=type(module).__name__, shape_out=shape, params=params, graft=is_graft, path=name
    )


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode without gradients; training flags are put back."""
    flags = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in flags.items():
            module.training = training
