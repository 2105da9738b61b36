"""Writes a network as one Python file that imports torch only, with the weights beside it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, fx, nn

from esper.training.graph import Description, describe, rebuild, weights_of

HEADER = '''"""A network that Esper grew. Needs torch only; the weights lie beside this file.

    from {name} import load
    model = load()
"""

import torch
from torch import device, inf, nan  # noqa: F401 - the names that generated code uses


class Network(torch.nn.Module):
    """{num_params:,} parameters."""

    def __init__(self):
        super().__init__()
'''

FOOTER = '''

def load():
    """The trained network, in eval mode."""
    network = Network()
    weights = __file__.rpartition(".")[0] + ".pt"
    network.load_state_dict(torch.load(weights, weights_only=True))
    return network.eval()
'''


def write_code(model: nn.Module, path: Path) -> None:
    """Write ``model`` to ``path`` (``.py``) and its weights beside it (``.pt``, loaded with
    ``weights_only``).

    Raises ``RunError`` when the network does more than layers, functions and operators.
    """
    description = describe(model)
    state = weights_of(model, description)
    graph = rebuild(description, state)
    num_params = sum(parameter.numel() for parameter in graph.parameters())
    header = HEADER.format(name=path.stem, num_params=num_params)
    lines = [*_containers(description), *_layers(description), *_loose(description, state)]
    construction = "".join(f"        {line}\n" for line in lines or ["pass"])
    path.write_text(header + construction + _forward(graph) + FOOTER, encoding="utf-8")
    torch.save(graph.state_dict(), path.with_suffix(".pt"))


def _containers(description: Description) -> Iterator[str]:
    """Modules that hold others, outer ones first."""
    made: set[str] = set()
    for path in [*description.layers, *description.weights]:
        parts = path.split(".")[:-1]
        for depth in range(1, len(parts) + 1):
            container = ".".join(parts[:depth])
            if container not in made:
                made.add(container)
                yield _assign(container, "torch.nn.Module()")


def _layers(description: Description) -> Iterator[str]:
    for path, (name, arguments) in description.layers.items():
        yield _assign(path, f"torch.nn.{name}({arguments})")


def _loose(description: Description, state: dict[str, Tensor]) -> Iterator[str]:
    """Tensors that belong to no layer."""
    for path, is_parameter in description.weights.items():
        parent, _, name = path.rpartition(".")
        empty = f"torch.empty({tuple(state[path].shape)}, dtype={state[path].dtype})"
        if is_parameter:
            yield f"{_owner(parent)}.register_parameter({name!r}, torch.nn.Parameter({empty}))"
        else:
            yield f"{_owner(parent)}.register_buffer({name!r}, {empty})"


def _assign(path: str, value: str) -> str:
    parent, _, name = path.rpartition(".")
    if name.isidentifier():
        return f"{_owner(parent)}.{name} = {value}"
    return f"{_owner(parent)}.add_module({name!r}, {value})"


def _owner(path: str) -> str:
    """The expression that reaches the module at ``path``; list-like containers have numbers for names."""
    owner = "self"
    for part in filter(None, path.split(".")):
        owner = f"{owner}.{part}" if part.isidentifier() else f"getattr({owner}, {part!r})"
    return owner


def _forward(graph: fx.GraphModule) -> str:
    code = graph.code.strip()
    return "\n" + "".join(f"    {line}\n" if line else "\n" for line in code.splitlines())
