"""Recognises attention of several heads in a traced forward pass, where nothing but its own tensors matters to it.

The number of heads must be left open (``-1``). Masks other than the causal one, positions and dropout are not known
here: where they are, there is none.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import torch.nn.functional as F
from torch import fx

from esper.surgery.per_unit import is_of_torch

Node = fx.Node
_SWAPS = {(1, 2), (2, 1), (-3, -2), (-2, -3), (1, -2), (-2, 1)}
_TURNS = {(-2, -1), (-1, -2), (2, 3), (3, 2)}


class Heads(NamedTuple):
    """Attention in a graph: the nodes that make queries, keys and values, and all between them and ``joined``.

    ``scale`` is what the products are multiplied by, ``None`` for the usual root.
    """

    makers: tuple[Node, Node, Node]
    nodes: frozenset[Node]
    width: int
    causal: bool
    scale: float | None


def heads_before(joined: Node) -> Heads | None:
    """The attention whose heads are put together again in ``joined``; ``None`` if it is not known to be one."""
    way: list[Node] = []
    mixed = _swapped(_flattened(joined, way), way)
    if mixed is None:
        return None
    parts = _by_torch(mixed) or _by_hand(mixed, way)
    if parts is None:
        return None
    (*split, causal, scale) = parts
    makers = [_split(node, way) for node in split]
    widths = {maker[1] for maker in makers if maker is not None}
    if None in makers or len(widths) != 1:
        return None
    query, key, value = (maker[0] for maker in makers if maker is not None)
    return Heads((query, key, value), frozenset((*way, mixed)), widths.pop(), causal, scale)


def written(graph: fx.Graph, parts: tuple[Node, ...], width: int, causal: bool, scale: float | None) -> Node:
    """Attention of heads of ``width`` in another graph, by functions of torch alone."""
    heads = [
        graph.call_method("transpose", (graph.call_method("unflatten", (part, -1, (-1, width))), 1, 2))
        for part in parts
    ]
    options: dict[str, Any] = {"is_causal": causal, "scale": scale}
    mixed = graph.call_function(F.scaled_dot_product_attention, tuple(heads), options)
    return graph.call_method("flatten", (graph.call_method("transpose", (mixed, 1, 2)), -2))


def _name(node: object) -> str:
    if not isinstance(node, Node) or node.op not in ("call_function", "call_method"):
        return ""
    target: str | Callable[..., Any] = node.target
    if isinstance(target, str):
        return target
    return target.__name__ if is_of_torch(target) else ""


def _plain(node: Node, way: list[Node]) -> Node:
    """``node``, or what it is a contiguous copy of."""
    while _name(node) == "contiguous":
        way.append(node)
        node = node.all_input_nodes[0]
    return node


def _flattened(joined: Node, way: list[Node]) -> Node | None:
    """What has the last two of its four dimensions made one."""
    node = _plain(joined, way)
    name, args = _name(node), _arguments(node)
    way.append(node)
    if name == "flatten" and args[1:] in ([2], [-2], [2, -1], [-2, -1], [2, 3]) and not node.kwargs:
        return _plain(args[0], way)
    if name in ("reshape", "view") and len(args) == 4 and _leads(args[1:3]) and args[3] == -1:
        return _plain(args[0], way)
    return None


def _swapped(node: Node | None, way: list[Node]) -> Node | None:
    """What has its positions and its heads the other way round."""
    name, args = _name(node), [] if node is None else _arguments(node)
    swaps = name == "transpose" and tuple(args[1:]) in _SWAPS
    if node is None or node.kwargs or not (swaps or (name == "permute" and args[1:] == [0, 2, 1, 3])):
        return None
    way.append(node)
    found = args[0]
    return found if isinstance(found, Node) else None


def _split(node: Node, way: list[Node]) -> tuple[Node, int] | None:
    """The tensor whose last dimension was split into heads, and how wide these are."""
    split = _swapped(_plain(node, way), way)
    name, args = _name(split), [] if split is None else _arguments(split)
    if split is None or split.kwargs:
        return None
    way.append(split)
    if name == "unflatten" and len(args) == 3 and args[1] in (-1, 2):
        args = [args[0], *args[2]]
    elif not (name in ("view", "reshape") and len(args) == 5 and _leads(args[1:3])):
        return None
    whole = args[-2:-1] == [-1] and isinstance(args[-1], int) and isinstance(args[0], Node)
    return (args[0], args[-1]) if whole else None


def _by_torch(mixed: Node) -> tuple[Node, Node, Node, bool, float | None] | None:
    """Queries, keys and values of torch's own attention, whether it is causal, and its scale."""
    if mixed.target is not F.scaled_dot_product_attention or len(mixed.args) != 3:
        return None
    given = {"attn_mask": None, "dropout_p": 0.0, "is_causal": False, "scale": None} | mixed.kwargs
    scale, causal = given.pop("scale"), given.pop("is_causal")
    known = isinstance(causal, bool) and (scale is None or isinstance(scale, float))
    if (
        not known
        or given != {"attn_mask": None, "dropout_p": 0.0}
        or not all(_is_node(a) for a in mixed.args)
    ):
        return None
    query, key, value = mixed.args
    return query, key, value, causal, scale  # type: ignore[return-value]  # they are nodes


def _by_hand(mixed: Node, way: list[Node]) -> tuple[Node, Node, Node, bool, float | None] | None:
    """The same of ``softmax(scale * q @ k.T) @ v``."""
    weights, value = _product(mixed)
    if _name(weights) != "softmax" or not _over_last(weights):
        return None
    scores, scale = _scaled(_arguments(weights)[0], way)
    query, turned = _product(scores)
    if turned is None or query is None or value is None:
        return None
    args = _arguments(turned)
    swapped = _name(turned) == "transpose" and tuple(args[1:]) in _TURNS
    if not (swapped or (turned.target is getattr and args[1] == "mT")):
        return None
    way += [weights, scores, turned]
    return query, args[0], value, False, scale


def _over_last(softmax: Node) -> bool:
    """Whether it is over the last dimension, with nothing else said."""
    named = [value for name, value in softmax.kwargs.items() if name != "_stacklevel" and value is not None]
    return [*_arguments(softmax)[1:], *named] == [-1]


def _product(node: Any) -> tuple[Any, Any]:
    args = _arguments(node) if _name(node) == "matmul" else []
    return (args[0], args[1]) if len(args) == 2 and all(map(_is_node, args)) else (None, None)


def _scaled(node: Any, way: list[Node]) -> tuple[Any, float]:
    """A product and the number it is multiplied by."""
    name, args = _name(node), _arguments(node)
    if name not in ("mul", "truediv", "div") or len(args) != 2 or not isinstance(args[1], int | float):
        return node, 1.0
    way.append(node)
    return args[0], float(args[1]) if name == "mul" else 1 / args[1]


def _arguments(node: Any) -> list[Any]:
    """Positional arguments; a shape that is given as one is written out."""
    if not isinstance(node, Node):
        return []
    args = list(node.args)
    if len(args) == 2 and isinstance(args[1], tuple | list):
        return [args[0], *args[1]]
    return args


def _leads(dims: list[Any]) -> bool:
    """Whether these are the first two sizes of a tensor."""
    return all(_size(node, dim) for dim, node in enumerate(dims))


def _size(node: Any, dim: int) -> bool:
    if _name(node) == "size":
        return tuple(node.args[1:]) == (dim,)
    source = _item(node, dim)
    if isinstance(source, Node) and source.target is operator.getitem:
        source = _item(source, slice(None, 2))
    if not isinstance(source, Node):
        return False
    shape = source.target is getattr and source.args[1] == "shape"
    return shape or (_name(source) == "size" and len(source.args) == 1)


def _item(node: Any, key: object) -> Any:
    """What ``node`` is this item of."""
    found = isinstance(node, Node) and node.target is operator.getitem and node.args[1] == key
    return node.args[0] if found else None


def _is_node(value: object) -> bool:
    return isinstance(value, Node)
