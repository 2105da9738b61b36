"""The forward pass of a module as a ``torch.fx`` graph, where there is one. Knows no grafts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

from torch import fx, nn
from torch.utils import checkpoint

from esper.surgery.isolation import isolated
from esper.surgery.names import above

CHECKPOINTING = (checkpoint.checkpoint, checkpoint.checkpoint_sequential)


class _Tracer(fx.Tracer):
    """Stops at every submodule, except those that hold a module of ``inside``, and before checkpointed parts.

    Nor does it stop at other modules for which ``into`` is true, those of ``inside`` excepted.
    """

    def __init__(
        self, inside: Sequence[str], into: Callable[[nn.Module], bool] | None = None, method: str = "forward"
    ) -> None:
        super().__init__(autowrap_modules=(checkpoint,))
        # Of what that module holds only these: every function more is looked for in each forward that is traced.
        self._autowrap_function_ids = {id(function) for function in CHECKPOINTING}
        self._inside = frozenset(inside)
        self._around = {outer for name in inside for outer in above(name)}
        self._into = into
        self.traced_func_name = method

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        if module_qualified_name in self._around:
            return False
        return self._into is None or module_qualified_name in self._inside or not self._into(m)


def graph_of(
    module: nn.Module,
    inside: Sequence[str],
    *,
    into: Callable[[nn.Module], bool] | None = None,
    method: str = "forward",
) -> fx.Graph:
    """The graph of ``module``'s forward in which every module of ``inside`` is a node; the module stays as it was.

    Modules for which ``into`` is true are written out, too, instead of being one node each. Another ``method`` can be
    asked for instead of the forward pass.
    Raises whatever the forward raises when it is given symbols instead of tensors.
    """
    if method == "forward" and _is_chain(module, inside):
        asked = [child for name, child in module.named_children() if name not in inside]
        if into is None or not any(map(into, asked)):
            return _chained(module)
    with isolated(module):
        return _traced(module, inside, into, method)


def flaws(module: nn.Module, names: Iterable[str]) -> dict[str, str]:
    """Why the graph of ``module``'s forward cannot stand for it, or lacks some of the submodules ``names``, by name."""
    names = sorted(set(names))
    if _is_chain(module, names):
        return {}
    replaced = "forward" in vars(module)
    graph = "has been replaced" if replaced else tried(partial(_flawless, module, names))
    if isinstance(graph, str):
        return dict.fromkeys(names, graph)
    calls = Counter(node.target for node in graph.nodes if node.op == "call_module")
    return {name: "does not call both ends of the span once" for name in names if calls[name] != 1}


def tried(tracing: Callable[[], fx.Graph | str]) -> fx.Graph | str:
    """What ``tracing`` gives, or why the code cannot be traced."""
    try:
        return tracing()
    except Exception as error:  # noqa: BLE001 - fx raises whatever the traced code raises
        return f"cannot be traced ({type(error).__name__})"


def follow(graph_module: fx.GraphModule, module: nn.Module) -> None:
    """Let ``graph_module`` read what ``module`` holds at the time of each call; in deep copies of both likewise."""
    keep(graph_module, {held: vars(module)[held] for held in ("_parameters", "_buffers", "_modules")})


def keep(graph_module: fx.GraphModule, attributes: dict[str, Any]) -> None:
    """Give ``graph_module`` attributes that its deep copies have too."""
    graph_module.meta["_user_preserved_attributes"] = attributes
    vars(graph_module).update(attributes)


def _is_chain(module: nn.Module, names: Sequence[str]) -> bool:
    """Whether it calls its children one after the other, ``names`` among them, so that no look at it is needed."""
    if type(module) is not nn.Sequential or "forward" in vars(module):
        return False
    children = [child for _, child in module.named_children()]
    return len(children) == len(module) and all(name in module._modules for name in names)


def _chained(module: nn.Module) -> fx.Graph:
    """What tracing an ``nn.Sequential`` gives: each child called with what the one before it returned."""
    graph = fx.Graph()
    value = graph.placeholder("input")
    for name in module._modules:
        value = graph.call_module(name, (value,))
    graph.output(value)
    return graph


def _flawless(module: nn.Module, names: Sequence[str]) -> fx.Graph | str:
    """The graph of ``module``'s forward, or why it cannot stand for it."""
    with isolated(module):
        before = dict(_bindings(module))
        graphs = []
        for training in (True, False):
            for part in module.modules():
                vars(part)["training"] = training
            graphs.append(_traced(module, names))
        if any(before.get(key) is not value for key, value in _bindings(module)):
            return "keeps state, or makes constant tensors"
    if str(graphs[0]) != str(graphs[1]):
        return "depends on train or eval mode"
    known = {name for name, _ in (*module.named_parameters(), *module.named_buffers())}
    if any(node.op == "get_attr" and node.target not in known for node in graphs[0].nodes):
        return "reads tensors that are neither parameters nor buffers"
    return graphs[0]


def _bindings(module: nn.Module) -> Iterator[tuple[tuple[int, str], Any]]:
    """What every attribute of every submodule stands for, modes left out."""
    for part in module.modules():
        yield from (((id(part), name), value) for name, value in vars(part).items() if name != "training")


def _traced(
    module: nn.Module,
    inside: Sequence[str],
    into: Callable[[nn.Module], bool] | None = None,
    method: str = "forward",
) -> fx.Graph:
    graph = _Tracer(inside, into, method).trace(module)
    graph._tracer_cls = None  # else a pickle would need this class
    for node in graph.nodes:
        node.type = None  # an annotation, which may name what a pickle cannot find
    return graph
