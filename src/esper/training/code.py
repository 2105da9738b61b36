"""Writes a network as one Python file that imports torch only, with the weights beside it."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import fx, nn

from esper.errors import RunError
from esper.training.graph import constructor, describe, rebuild, weights_of

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
    graph = _as_graph(model)
    num_params = sum(parameter.numel() for parameter in graph.parameters())
    header = HEADER.format(name=path.stem, num_params=num_params)
    path.write_text(header + _construction(graph) + _forward(graph) + FOOTER, encoding="utf-8")
    torch.save(graph.state_dict(), path.with_suffix(".pt"))


def _as_graph(model: nn.Module) -> fx.GraphModule:
    description = describe(model)
    return rebuild(description, weights_of(model, description))


def _construction(graph: fx.GraphModule) -> str:
    """Lines of ``__init__``: containers first, then what is in them."""
    lines = []
    for path, module in graph.named_modules():
        if not path:
            continue
        bare = type(module) is nn.Module
        arguments = "" if bare else constructor(module)
        if arguments is None:
            raise RunError(f"{path} is a {type(module).__name__}, which cannot be written as code")
        lines.append(_assign(path, f"torch.nn.{type(module).__name__}({arguments})"))
    for path, parameter in graph.named_parameters():
        if type(graph.get_submodule(path.rpartition(".")[0])) in (nn.Module, type(graph)):
            lines.append(_assign(path, f"torch.nn.Parameter(torch.empty({tuple(parameter.shape)}))"))
    for path, buffer in graph.named_buffers():
        if type(graph.get_submodule(path.rpartition(".")[0])) in (nn.Module, type(graph)):
            value = f"torch.empty({tuple(buffer.shape)}, dtype={buffer.dtype})"
            parent, _, name = path.rpartition(".")
            lines.append(f"{_owner(parent)}.register_buffer({name!r}, {value})")
    return "".join(f"        {line}\n" for line in lines)


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
