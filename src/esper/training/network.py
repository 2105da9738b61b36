"""What a network looks like from outside: its layers in the order they run, and its exact size."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from esper.surgery.multiply_adds import MultiplyAdds
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
    """Multiply-adds of one example's forward pass: matrix products, convolutions, attention, recurrent layers."""
    counter = MultiplyAdds()
    with evaluating(model), unfused(), counter:
        model(*take(rows, slice(0, 1))[:-1])
    return counter.total


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


@contextmanager
def unfused() -> Iterator[None]:
    """Transformer layers run as their parts, not as one fused operation each, and attention as matrix products."""
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
