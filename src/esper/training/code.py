"""Writes a network as one Python file that imports torch only, with the weights beside it."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from keyword import iskeyword
from pathlib import Path

import torch
from torch import Tensor, fx

from esper.training import by_row
from esper.training.graph import Description, rebuild

FREED = re.compile(r";  [\w =]+ = None$", re.MULTILINE)
"""What generated code adds to give memory back early."""

ANNOTATION = re.compile(r"(?<=\w): Any(?=[,)])| -> [\w\[\]]+(?=:$)", re.MULTILINE)
"""Types in a signature; the file should not have to import them."""

HEADER = '''"""A network that Esper grew. Needs torch only; the weights lie beside this file.

    from {name} import {names}
    {example}
"""

{libraries}import torch
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

TABLE = '''

def predict(rows):
    """The prediction for each of ``rows``, dictionaries such as those of ``csv.DictReader``."""
    with open(__file__.rpartition(".")[0] + ".json", encoding="utf-8") as file:
        preparation = json.load(file)
    with torch.no_grad():
        return decode(load()(encode(rows, preparation)), preparation)
'''


def write_code(
    description: Description, state: dict[str, Tensor], path: Path, *, for_rows: bool = False
) -> None:
    """Write the network of a description to ``path`` (``.py``) and its weights ``state`` beside it (``.pt``, loaded
    with ``weights_only``); layers and tensors keep their names.

    With ``for_rows`` the file also has ``predict``, which reads how a table is prepared from a ``.json`` beside it.

    Raises ``RunError`` for a description or weights that do not make a network.
    """
    graph = rebuild(description, state)
    num_params = sum(parameter.numel() for parameter in graph.parameters())
    header = HEADER.format(
        name=path.stem,
        num_params=num_params,
        names="load, predict" if for_rows else "load",
        example="predictions = predict([{...}, ...])" if for_rows else "model = load()",
        libraries="import json\nimport math\n\n" if for_rows else "",
    )
    construction = "".join(f"        {line}\n" for line in _parts(description, graph.state_dict()))
    code = header + construction + _forward(graph) + FOOTER + (_rows() if for_rows else "")
    path.write_text(code, encoding="utf-8")
    torch.save(graph.state_dict(), path.with_suffix(".pt"))


def _rows() -> str:
    """How rows of a table become inputs, copied from the module that does it here."""
    functions = [part for part in vars(by_row).values() if inspect.isfunction(part)]
    return TABLE + "".join(f"\n\n{ANNOTATION.sub('', inspect.getsource(function))}" for function in functions)


def _parts(description: Description, state: dict[str, Tensor]) -> Iterator[str]:
    """Lines that give the network its layers, loose tensors and what holds them, outermost first."""
    lines = {path: _held(path, "torch.nn.Module()") for path in _holders(description)}
    for path, (kind, arguments) in description.layers.items():
        lines[path] = _held(path, f"torch.nn.{kind}({arguments})")
    for path, is_parameter in description.weights.items():
        lines[path] = _loose(path, state[path], is_parameter=is_parameter)
    return (lines[path] for path in sorted(lines, key=lambda path: path.count(".")))


def _holders(description: Description) -> Iterator[str]:
    """Paths of modules that only hold others, so that what is inside has the name that it had in the network."""
    for path in [*description.layers, *description.weights]:
        while "." in path:
            path = path.rpartition(".")[0]
            yield path


def _loose(path: str, tensor: Tensor, *, is_parameter: bool) -> str:
    """A tensor that belongs to no layer."""
    empty = f"torch.empty({tuple(tensor.shape)}, dtype={tensor.dtype})"
    if is_parameter:
        return _held(path, f"torch.nn.Parameter({empty})")
    owner, name = _owner(path)
    return f"{owner}.register_buffer({name!r}, {empty})"


def _held(path: str, thing: str) -> str:
    """A line that gives the network ``thing`` under ``path``; names of list items are no names in Python."""
    owner, name = _owner(path)
    return f"{owner}.{name} = {thing}" if _is_name(name) else f"{owner}.add_module({name!r}, {thing})"


def _owner(path: str) -> tuple[str, str]:
    """The module that holds what lies at ``path``, as Python text, and the name there."""
    *outer, name = path.split(".")
    owner = "self"
    for part in outer:
        owner = f"{owner}.{part}" if _is_name(part) else f"{owner}.get_submodule({part!r})"
    return owner, name


def _is_name(text: str) -> bool:
    return text.isidentifier() and not iskeyword(text)


def _forward(graph: fx.GraphModule) -> str:
    code = FREED.sub("", graph.code.strip())
    return "\n" + "".join(f"    {line}\n" if line else "\n" for line in code.splitlines())
