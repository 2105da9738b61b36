"""Finds and replaces the tensor that matters inside a module's arguments or output. Knows no grafts."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor


def first_input(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor | None:
    """The first floating tensor among positional, then keyword arguments; ``None`` if there is none."""
    return _first((*args, *kwargs.values()))


def first_output(output: object) -> Tensor | None:
    """The output itself, or the first floating tensor inside a tuple, list or mapping."""
    if isinstance(output, Tensor):
        return output if output.is_floating_point() else None
    if isinstance(output, Mapping):
        return _first(output.values())
    if isinstance(output, (tuple, list)):
        return _first(output)
    return None


def with_first_output(output: Any, tensor: Tensor) -> Any:
    """A copy of ``output`` in which the tensor that `first_output` finds is replaced by ``tensor``."""
    if isinstance(output, Tensor):
        return tensor
    old = first_output(output)
    if isinstance(output, Mapping):
        fresh: Any = copy.copy(output)
        fresh[next(key for key, value in output.items() if value is old)] = tensor
        return fresh
    items = [tensor if item is old else item for item in output]
    if isinstance(output, list):
        return items
    return type(output)(*items) if type(output) is not tuple else tuple(items)


def _first(values: Iterable[object]) -> Tensor | None:
    for value in values:
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            return value
    return None
