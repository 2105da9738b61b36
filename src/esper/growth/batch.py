"""Tensors inside a batch, or inside the arguments of a call, however deep they are nested. Knows no model."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any

import torch
from torch import Tensor


def move(batch: Any, device: torch.device) -> Any:
    """``batch`` with every tensor inside tuples, lists and mappings on ``device``."""
    return with_tensors(batch, lambda tensor: tensor.to(device))


def copied(batch: Any) -> Any:
    """``batch`` with tensors of its own that are leaves; one that stands twice in it does so in the copy, too."""
    memo: dict[int, Tensor] = {}

    def copy_of(tensor: Tensor) -> Tensor:
        if id(tensor) not in memo:
            memo[id(tensor)] = tensor.detach().clone().requires_grad_(tensor.requires_grad)
        return memo[id(tensor)]

    return with_tensors(batch, copy_of)


def with_tensors(batch: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """``batch`` with every tensor inside tuples, lists and mappings replaced by what ``change`` makes of it."""
    if isinstance(batch, Tensor):
        return change(batch)
    if isinstance(batch, Mapping):
        items = {key: with_tensors(value, change) for key, value in batch.items()}
        return _mapping_like(batch, items)
    if isinstance(batch, (tuple, list)):
        values = [with_tensors(item, change) for item in batch]
        return values if isinstance(batch, list) else _tuple_like(batch, values)
    return batch


def _mapping_like(batch: Mapping[Any, Any], items: dict[Any, Any]) -> Mapping[Any, Any]:
    """One of the same class, where it can be written to: its author may reach the items by other ways."""
    if type(batch) is dict or not isinstance(batch, MutableMapping):
        return items
    fresh = copy.copy(batch)
    for key, value in items.items():
        fresh[key] = value
    return fresh


def _tuple_like(batch: tuple[Any, ...], items: list[Any]) -> tuple[Any, ...]:
    """A named tuple's class takes its items one by one."""
    return tuple(items) if type(batch) is tuple else type(batch)(*items)
