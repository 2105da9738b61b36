"""Calls of functions and methods in a traced forward pass, spelled in one way. Knows no units."""

from __future__ import annotations

import operator
from typing import Any, NamedTuple

from torch import fx

from esper.surgery.block import Plain
from esper.surgery.per_unit import is_operator, name_of

Node = fx.Node


class Call(NamedTuple):
    """A function of torch by name; ``args`` are nodes of the graph and plain values, ``options`` plain values."""

    name: str
    args: tuple[Any, ...]
    options: tuple[tuple[str, Plain], ...] = ()

    @property
    def tensors(self) -> list[Node]:
        """The tensors that it is given."""
        return [arg for arg in self.args if isinstance(arg, Node)]

    @property
    def plain(self) -> tuple[Plain, ...]:
        """The arguments that are no tensors."""
        return tuple(arg for arg in self.args if not isinstance(arg, Node))


def spelled(node: Node) -> Call | str:
    """The call of a node, or why a block cannot hold it."""
    name = name_of(node.target)
    if name is None:
        return "is not known to treat each unit alone"
    args: tuple[Any, ...] = tuple(node.args)
    if name in ("view", "reshape"):
        return _flattening(args)
    if name == "getitem":
        return _chosen(args)
    if name in ("mean", "sum", "amax", "amin") and isinstance(args[-1], list | tuple):
        args = (*args[:-1], tuple(args[-1]))
    options: dict[str, Any] = {
        key: value for key, value in node.kwargs.items() if key not in ("inplace", "return_indices")
    }
    if is_operator(name) and options:
        return "has options"
    return _plain(Call(name, args, tuple(sorted(options.items()))))


def asks_batch_size(node: Node) -> bool:
    """Whether a node only asks how many examples there are, or is never used."""
    if not node.users:
        return node.op == "call_function" and node.target is operator.getitem
    if node.op == "call_method" and node.target == "size":
        return node.args[1:] == (0,) or (not node.args[1:] and all(map(_is_first, node.users)))
    return node.target is getattr and node.args[1] == "shape" and all(map(_is_first, node.users))


def _is_first(node: Node) -> bool:
    return node.target is operator.getitem and bool(node.args[1] == 0)


def _is_batch_size(value: object) -> bool:
    if not isinstance(value, Node):
        return False
    source = value.args[0] if _is_first(value) else value
    return isinstance(source, Node) and (source.target in ("size", getattr)) and asks_batch_size(source)


def _flattening(args: tuple[object, ...]) -> Call | str:
    """``x.view(x.size(0), -1)`` for ``x.flatten(1)``."""
    x, *shape = args
    if len(shape) == 1 and isinstance(shape[0], list | tuple):
        shape = list(shape[0])
    if isinstance(x, Node) and len(shape) == 2 and _is_batch_size(shape[0]) and shape[1] == -1:
        return Call("flatten", (x, 1))
    return "puts the units into another shape"


def _chosen(args: tuple[object, ...]) -> Call | str:
    """``x[:, -1]`` for ``x.select(1, -1)``; an item by number stays one: it may be that of a tuple."""
    x, key = args
    if isinstance(key, int):
        return Call("getitem", (x, key))
    keys = list(key) if isinstance(key, tuple) else [key]
    if Ellipsis in keys:
        return "chooses among units"
    chosen = [(dim, index) for dim, index in enumerate(keys) if index != slice(None)]
    if len(chosen) != 1 or not isinstance(chosen[0][1], int):
        return "chooses among units"
    return Call("select", (x, *chosen[0]))


def _plain(call: Call) -> Call | str:
    values = (*call.plain, *(value for _, value in call.options))
    return call if all(map(_is_plain, values)) else "has an argument that is no plain number"


def _is_plain(value: object) -> bool:
    if isinstance(value, tuple):
        return all(isinstance(item, int | float | None) for item in value)
    return isinstance(value, bool | int | float | str | None)
