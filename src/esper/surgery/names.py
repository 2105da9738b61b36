"""Qualified names of modules: what holds what. Knows no graph."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn


def above(name: str) -> Iterator[str]:
    """Names of the modules that hold this one, the nearest first and the model, "", last."""
    while name:
        name = name.rpartition(".")[0]
        yield name


def common_parent(model: nn.Module, entry: str, exit_name: str) -> str:
    """Name of the smallest module with a forward that holds both; "" is the model itself."""
    holders = set(above(entry))
    shared = (name for name in above(exit_name) if name in holders)
    return next(
        (n for n in shared if not isinstance(model.get_submodule(n), nn.ModuleList | nn.ModuleDict)), ""
    )


def relative(name: str, parent: str) -> str:
    """The name of a module inside its holder ``parent``."""
    return name[len(parent) + 1 :] if parent else name
