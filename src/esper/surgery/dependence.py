"""What depends on what, read from an autograd graph. Does not know modules."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.autograd.graph import Node

_ALONG_STREAMS = ("AddBackward", "ReluBackward", "NativeLayerNormBackward", "ToCopyBackward")

# One output of one node of the graph: what a tensor is to autograd.
Edge = tuple[Node, int]


def edges_of(tensors: Iterable[Tensor]) -> set[Edge]:
    """Where the tensors stand in the graph.

    A view stands in two places: an operation in place on a view rebuilds the view's own node, so that only
    the node of its base is still found from later results.
    """
    found = set()
    for tensor in tensors:
        for alias in (tensor, tensor._base):
            if alias is not None and alias.grad_fn is not None:
                found.add((alias.grad_fn, alias.output_nr))
    return found


def ancestors_of(groups: Sequence[set[Edge]]) -> list[int]:
    """For each group of edges the groups that it was computed from, as a bitset; its own bit is set too.

    One pass over the graph, whatever the number of groups.
    """
    marks: dict[Edge, int] = {}
    for number, group in enumerate(groups):
        for edge in group:
            marks[edge] = marks.get(edge, 0) | 1 << number
    behind = _collected(marks)
    return [_united(marks.get(edge, 0) | behind[edge[0]] for edge in group) for group in groups]


def reachable_from(edges: Iterable[Edge]) -> set[Edge]:
    """The edges from which these were computed, themselves included."""
    found = set(edges)
    waiting = list(found)
    while waiting:
        node, _ = waiting.pop()
        fresh = {edge for edge in _inputs(node) if edge not in found}
        found |= fresh
        waiting += fresh
    return found


def is_stream(targets: Iterable[Edge], sources: set[Edge]) -> bool:
    """Whether one of ``targets`` is one of ``sources`` plus something, perhaps normalised or rectified since.

    What is older than all sources is not looked at: along a deep stream that would be everything before.
    """
    waiting = [(edge, False) for edge in targets]
    oldest = min((node._sequence_nr() for node, _ in sources), default=0)
    seen: set[tuple[Edge, bool]] = set()
    while waiting:
        (node, number), added = waiting.pop()
        if ((node, number), added) in seen:
            continue
        seen.add(((node, number), added))
        if added and (node, number) in sources:
            return True
        name = node.name().rstrip("0123456789")
        if name in _ALONG_STREAMS and node._sequence_nr() > oldest:
            waiting += [(edge, added or name == "AddBackward") for edge in _inputs(node)]
    return False


def leaves_among(edges: Iterable[Edge]) -> list[Tensor]:
    """The leaf tensors (parameters, mostly) that collect gradients at these edges."""
    nodes: list[Any] = [node for node, _ in edges if node.name() == "torch::autograd::AccumulateGrad"]
    return [node.variable for node in nodes]


def _collected(marks: Mapping[Edge, int]) -> dict[Node, int]:
    """For every node the marks of all edges behind it. Depth first without recursion: graphs are deep."""
    behind: dict[Node, int] = {}
    waiting = [(node, False) for node, _ in marks]
    while waiting:
        node, ready = waiting.pop()
        if node in behind:
            continue
        inputs = _inputs(node)
        if ready:
            behind[node] = _united(marks.get(edge, 0) | behind[edge[0]] for edge in inputs)
        else:
            waiting.append((node, True))
            waiting += [(child, False) for child, _ in inputs if child not in behind]
    return behind


def _inputs(node: Node) -> list[Edge]:
    return [(child, number) for child, number in node.next_functions if child is not None]


def _united(bitsets: Iterable[int]) -> int:
    union = 0
    for bits in bitsets:
        union |= bits
    return union
