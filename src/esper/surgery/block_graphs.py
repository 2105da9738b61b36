"""Graphs of data flow in which blocks can be looked for. Does not know what a block is.

Where the forward pass of a module cannot be traced, a method that it calls often can: the feed-forward part of
``nn.TransformerEncoderLayer``, for one.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from functools import partial

from torch import fx, nn

from esper.surgery.forward_graph import graph_of, tried
from esper.surgery.isolation import isolated


def whole(module: nn.Module, inside: Sequence[str]) -> fx.Graph | str:
    """The graph of the forward pass in which every module of ``inside`` is a node, or why there is none.

    Activations written by hand are written out.
    """
    return tried(partial(graph_of, module, inside, into=_is_function_of_input))


def in_parts(module: nn.Module, inside: Sequence[str]) -> list[tuple[fx.Graph, fx.Graph]]:
    """What can be traced, in train and in eval mode: the forward pass, and methods of one tensor that it names."""
    if "forward" in vars(module):
        return []
    found = [_in_both_modes(module, inside, method) for method in ("forward", *_parts(type(module)))]
    return [pair for pair in found if pair is not None]


def calls_once(graph: fx.Graph, names: Iterable[str]) -> bool:
    """Whether every module of ``names`` is one node of the graph."""
    called = [node.target for node in graph.nodes if node.op == "call_module"]
    return all(called.count(name) == 1 for name in names)


def _in_both_modes(module: nn.Module, inside: Sequence[str], method: str) -> tuple[fx.Graph, fx.Graph] | None:
    graphs = []
    with isolated(module):
        for training in (True, False):
            for part in module.modules():
                vars(part)["training"] = training
            graph = tried(partial(graph_of, module, inside, into=_is_function_of_input, method=method))
            if isinstance(graph, str):
                return None
            graphs.append(graph)
    return graphs[0], graphs[1]


def _parts(kind: type) -> list[str]:
    """Names of methods that the forward pass names and that take one tensor."""
    own = {
        name: value
        for base in reversed(kind.__mro__)
        if base not in (nn.Module, object)
        for name, value in vars(base).items()
        if inspect.isfunction(value)
    }
    named = inspect.unwrap(own["forward"]).__code__.co_names if "forward" in own else ()
    return [name for name in named if name in own and _takes_one(own[name])]


def _takes_one(method: Callable[..., object]) -> bool:
    _, *given = inspect.signature(method).parameters.values()
    return len(given) == 1


def _is_function_of_input(module: nn.Module) -> bool:
    """Whether a class that is not torch's has nothing of its own, as activations written by hand have."""
    of_torch = type(module).__module__.startswith("torch.")
    return not (of_torch or any(True for _ in module.parameters()) or any(True for _ in module.buffers()))
