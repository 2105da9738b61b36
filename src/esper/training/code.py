"""Writes a network as one Python file that imports torch only, with the weights beside it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import msgspec
import torch
from torch import Tensor, fx, nn

from esper.training.graph import Description, describe, rebuild, weights_of

FREED = re.compile(r";  [\w =]+ = None$", re.MULTILINE)
"""What generated code adds to give memory back early."""

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


def write_code(model: nn.Module, path: Path, *, num_inputs: int = 1) -> None:
    """Write ``model`` to ``path`` (``.py``) and its weights beside it (``.pt``, loaded with
    ``weights_only``).

    Raises ``RunError`` when the network does more than layers, functions and operators.
    """
    found = describe(model, num_inputs=num_inputs)
    description, state = _flat(found, weights_of(model, found))
    graph = rebuild(description, state)
    num_params = sum(parameter.numel() for parameter in graph.parameters())
    header = HEADER.format(name=path.stem, num_params=num_params)
    lines = [*_layers(description), *_loose(description, state)]
    construction = "".join(f"        {line}\n" for line in lines)
    path.write_text(header + construction + _forward(graph) + FOOTER, encoding="utf-8")
    torch.save(graph.state_dict(), path.with_suffix(".pt"))


def _flat(description: Description, state: dict[str, Tensor]) -> tuple[Description, dict[str, Tensor]]:
    """The same network with every layer and loose tensor directly in the outermost module."""
    names: dict[str, str] = {}
    for path in [*description.layers, *description.weights]:
        name = path.replace(".", "_")
        name = name if name.isidentifier() else f"layer_{name}"
        while name in names.values():
            name += "_"
        names[path] = name
    calls = tuple(
        msgspec.structs.replace(call, target=names[call.target])
        if call.op in {"call_module", "get_attr"}
        else call
        for call in description.calls
    )
    layers = {names[path]: layer for path, layer in description.layers.items()}
    weights = {names[path]: is_parameter for path, is_parameter in description.weights.items()}
    return Description(layers, weights, calls), {
        _renamed(path, names): tensor for path, tensor in state.items()
    }


def _renamed(path: str, names: dict[str, str]) -> str:
    """A tensor's path with the part that has a new name replaced."""
    if path in names:
        return names[path]
    owner = next(name for name in _prefixes(path) if name in names)
    return names[owner] + path[len(owner) :]


def _prefixes(path: str) -> Iterator[str]:
    while "." in path:
        path = path.rpartition(".")[0]
        yield path


def _layers(description: Description) -> Iterator[str]:
    for name, (kind, arguments) in description.layers.items():
        yield f"self.{name} = torch.nn.{kind}({arguments})"


def _loose(description: Description, state: dict[str, Tensor]) -> Iterator[str]:
    """Tensors that belong to no layer."""
    for name, is_parameter in description.weights.items():
        empty = f"torch.empty({tuple(state[name].shape)}, dtype={state[name].dtype})"
        if is_parameter:
            yield f"self.{name} = torch.nn.Parameter({empty})"
        else:
            yield f"self.register_buffer({name!r}, {empty})"


def _forward(graph: fx.GraphModule) -> str:
    code = FREED.sub("", graph.code.strip())
    return "\n" + "".join(f"    {line}\n" if line else "\n" for line in code.splitlines())
