"""Turns grafts into plain PyTorch: afterwards no module's class and no hook is defined in esper.

A graft at one module becomes a ``torch.fx.GraphModule`` in that module's place. A graft across a span is written into
the forward pass of the smallest module that holds both ends. Does not know why a graft is there.
"""

from __future__ import annotations

import inspect
import operator
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any, Literal, NamedTuple

import torch.nn.functional as F
from torch import Tensor, fx, nn

from esper.errors import SiteError
from esper.surgery.graft import Graft, Grafts, is_cut, release
from esper.surgery.site import Site
from esper.surgery.structure import first_input, first_output

Kind = Literal["tensor", "tuple", "list", "dict"]
PLAIN = (bool, int, float, str, tuple)


class Form(NamedTuple):
    """How an exit module was called: the parameter that the grafts read, and what it returned.

    ``kind`` is ``tensor``, or the ``tuple``, ``list`` or ``dict`` as which a collection is returned after folding;
    ``items`` are its keys or positions, ``item`` the one that grafts add to.
    """

    parameter: str
    kind: Kind
    items: tuple[int | str, ...] = ()
    item: int | str | None = None


class _End(NamedTuple):
    """One exit module and what was attached there."""

    exit: str
    cut: bool
    grafts: list[Graft]

    @property
    def has_span(self) -> bool:
        """Whether one of the grafts reads the input of another module."""
        return any(graft.site.is_span for graft in self.grafts)

    @property
    def parent(self) -> str:
        """Name of the smallest module that holds all ends."""
        parents = [common_parent(graft.site.entry, self.exit) for graft in self.grafts]
        return min(parents, key=len)


def fold(model: nn.Module, forms: Mapping[str, Form]) -> int:
    """Fold every graft of ``model`` in place and return how many there were.

    ``forms`` are those that :func:`observe` found. The function computed stays the same, up to rounding.
    """
    exits = _exits(model)
    ends = [_End(name, is_cut(model, name), release(model, name)) for name in exits]
    for end in ends:
        if not end.has_span:
            _replace(model, end.exit, _grown(model.get_submodule(end.exit), end, forms[end.exit]))
    _fold_spans(model, [end for end in ends if end.has_span])
    return sum(len(end.grafts) for end in ends)


def obstacles(model: nn.Module, spans: Iterable[Site]) -> dict[str, str]:
    """Why a graft across a span could not be folded, by the span's name; spans that could be are missing."""
    by_parent: dict[str, list[Site]] = defaultdict(list)
    for site in spans:
        by_parent[common_parent(site.entry, site.exit)].append(site)
    found: dict[str, str] = {}
    for parent, sites in by_parent.items():
        found.update(_obstacles_in(model.get_submodule(parent), parent, sites))
    return found


def _obstacles_in(module: nn.Module, parent: str, sites: list[Site]) -> dict[str, str]:
    whose = f"the forward of {parent or 'the model'}"
    ends = sorted({_relative(name, parent) for site in sites for name in (site.entry, site.exit)})
    try:
        graphs = [_trace(module, ends, training) for training in (True, False)]
    except Exception as error:  # noqa: BLE001 - fx raises whatever the traced code raises
        return dict.fromkeys((s.name for s in sites), f"{whose} cannot be traced ({type(error).__name__})")
    if str(graphs[0]) != str(graphs[1]):
        return dict.fromkeys((s.name for s in sites), f"{whose} depends on train or eval mode")
    calls = Counter(str(node.target) for node in graphs[0].nodes if node.op == "call_module")
    return {
        site.name: f"{whose} does not call both ends of the span once"
        for site in sites
        if any(calls[_relative(name, parent)] != 1 for name in (site.entry, site.exit))
    }


def common_parent(entry: str, exit_name: str) -> str:
    """Name of the smallest module that holds both; "" is the model itself."""
    shared = []
    for a, b in zip(entry.split(".")[:-1], exit_name.split(".")[:-1], strict=False):
        if a != b:
            break
        shared.append(a)
    return ".".join(shared)


def observe(model: nn.Module, run: Callable[[], object]) -> dict[str, Form]:
    """How the modules that carry grafts are called, by name; ``run`` makes one forward pass or more.

    Raises SiteError for one that is not called.
    """
    forms: dict[str, Form] = {}

    def watch(name: str, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        forms[name] = _form(module, args, kwargs, output)

    with ExitStack() as stack:
        for name in _exits(model):
            module = model.get_submodule(name)
            stack.callback(module.register_forward_hook(partial(watch, name), with_kwargs=True).remove)
        run()
    missing = [name for name in _exits(model) if name not in forms]
    if missing:
        raise SiteError(f"{missing[0]} carries a graft but was not called; it cannot be folded")
    return forms


def _exits(model: nn.Module) -> list[str]:
    return [name for name, m in model.named_modules() if isinstance(m._modules.get("grafts"), Grafts)]


def _form(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Form:
    bound = inspect.signature(module.forward).bind(*args, **kwargs)
    source = first_input(args, kwargs)
    parameter = next((name for name, value in bound.arguments.items() if value is source), "")
    target = first_output(output)
    if isinstance(output, Tensor):
        return Form(parameter, "tensor")
    kind: Kind = "dict" if isinstance(output, Mapping) else "list" if isinstance(output, list) else "tuple"
    pairs = list(output.items() if isinstance(output, Mapping) else enumerate(output))
    item = next(key for key, value in pairs if value is target)
    return Form(parameter, kind, tuple(key for key, _ in pairs), item)


def _grown(host: nn.Module, end: _End, form: Form) -> fx.GraphModule:
    """A module that does what ``host`` with its grafts did."""
    graph = fx.Graph()
    inputs = _placeholders(graph, host)
    root: dict[str, Any] = {f"grafts.{index}": graft.body for index, graft in enumerate(end.grafts)}
    own = None if end.cut and form.item is None else _own_path(graph, host, inputs, root)
    z = own if form.item is None or own is None else graph.call_function(operator.getitem, (own, form.item))
    total = None if end.cut else z
    for index, graft in enumerate(end.grafts):
        x = total if graft.site.attachment == "after" else inputs[form.parameter]
        total = _add(graph, total, graph.call_module(f"grafts.{index}", (x,)))
    graph.output(total if form.item is None else _rebuild(graph, own, form, total))
    grown = fx.GraphModule(root, graph, type(host).__name__)
    grown.__dict__.update(
        {k: v for k, v in vars(host).items() if isinstance(v, PLAIN) and k not in vars(grown)}
    )
    return grown.train(host.training)


def _placeholders(graph: fx.Graph, host: nn.Module) -> dict[str, fx.Node]:
    nodes = {}
    for name, parameter in inspect.signature(host.forward).parameters.items():
        if parameter.kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD):
            raise SiteError(
                f"{type(host).__name__}.forward takes *args or **kwargs: a graft at it cannot be folded"
            )
        default = () if parameter.default is inspect.Parameter.empty else (parameter.default,)
        nodes[name] = graph.create_node("placeholder", name, default)
    return nodes


def _own_path(graph: fx.Graph, host: nn.Module, inputs: dict[str, fx.Node], root: dict[str, Any]) -> fx.Node:
    """The host's own computation; layers that are one function of their weights keep the names of these."""
    call = _functional(host)
    if call is None:
        root["host"] = host
        return graph.call_module("host", (), dict(inputs))
    root.update({name: p for name, p in host.named_parameters(recurse=False)})
    weights = [graph.get_attr(name) if name in root else None for name in ("weight", "bias")]
    function, rest = call
    return graph.call_function(function, (*inputs.values(), *weights, *rest))


def _functional(host: nn.Module) -> tuple[Callable[..., Tensor], tuple[Any, ...]] | None:
    if host._forward_hooks or host._forward_pre_hooks or host._modules or "forward" in vars(host):
        return None
    if type(host) is nn.Linear:
        return F.linear, ()
    for kind, function in ((nn.Conv1d, F.conv1d), (nn.Conv2d, F.conv2d)):
        if type(host) is kind and host.padding_mode == "zeros":
            return function, (host.stride, host.padding, host.dilation, host.groups)
    return None


def _add(graph: fx.Graph, total: fx.Node | None, update: fx.Node) -> fx.Node:
    if total is None:
        return update
    return graph.call_function(operator.add, (total, graph.call_method("type_as", (update, total))))


def _rebuild(graph: fx.Graph, own: fx.Node | None, form: Form, total: fx.Node | None) -> Any:
    items = {
        key: total if key == form.item else graph.call_function(operator.getitem, (own, key))
        for key in form.items
    }
    if form.kind == "dict":
        return items
    return list(items.values()) if form.kind == "list" else tuple(items.values())


def _fold_spans(model: nn.Module, spans: list[_End]) -> None:
    """Write spans into the forward pass of the modules that hold their ends, innermost first."""
    by_parent: dict[str, list[_End]] = defaultdict(list)
    for span in spans:
        model.get_submodule(span.exit).add_module(
            "grafts", nn.ModuleList(graft.body for graft in span.grafts)
        )
        by_parent[span.parent].append(span)
    for parent in sorted(by_parent, key=lambda name: -name.count(".") - bool(name)):
        _rewrite(model.get_submodule(parent), parent, by_parent[parent])


def _rewrite(module: nn.Module, parent: str, spans: list[_End]) -> None:
    ends = [name for span in spans for graft in span.grafts for name in (graft.site.entry, span.exit)]
    graph = _trace(module, [_relative(name, parent) for name in ends], module.training)
    for span in spans:
        _write(graph, span, parent)
    grown = fx.GraphModule(module, graph, type(module).__name__)
    before = _called(graph)
    grown.graph.eliminate_dead_code()
    grown.recompile()
    after = _called(grown.graph)
    for name in before - after:
        _remove(module, name, keep=any(other.startswith(f"{name}.") for other in after))
    vars(module)["forward"] = grown.forward


def _write(graph: fx.Graph, span: _End, parent: str) -> None:
    path = _relative(span.exit, parent)
    end = _node(graph, path)
    last, total = end, None if span.cut else end
    ours = []
    for index, graft in enumerate(span.grafts):
        read = (total or end) if graft.site.attachment == "after" else _entry(graph, graft, parent)
        with graph.inserting_after(last):
            last = graph.call_module(f"{path}.grafts.{index}", (read,))
            ours.append(last)
        if total is None:
            total = last
            continue
        with graph.inserting_after(last):
            last = graph.call_method("type_as", (last, total))
            ours.append(last)
        with graph.inserting_after(last):
            last = total = graph.call_function(operator.add, (total, last))
            ours.append(last)
    end.replace_all_uses_with(last, delete_user_cb=lambda user: user not in ours)


def _entry(graph: fx.Graph, graft: Graft, parent: str) -> fx.Node:
    node = _node(graph, _relative(graft.site.entry, parent))
    return next(arg for arg in (*node.args, *node.kwargs.values()) if isinstance(arg, fx.Node))


def _node(graph: fx.Graph, name: str) -> fx.Node:
    nodes: Iterable[fx.Node] = graph.nodes
    return next(node for node in nodes if node.op == "call_module" and node.target == name)


def _trace(module: nn.Module, inside: Sequence[str], training: bool) -> fx.Graph:
    """The graph of ``module``'s forward; every submodule is one node, except those that hold a name of ``inside``."""
    flags = [(m, m.training) for m in module.modules()]
    tracer = _Tracer(tuple(inside))
    try:
        for m, _ in flags:
            m.training = training
        return tracer.trace(module)
    finally:
        for m, training in flags:
            m.training = training


class _Tracer(fx.Tracer):
    def __init__(self, inside: tuple[str, ...]) -> None:
        super().__init__()
        self._inside = inside

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:  # noqa: ARG002 - torch's signature
        return not any(name.startswith(f"{module_qualified_name}.") for name in self._inside)


def _called(graph: fx.Graph) -> set[str]:
    return {str(node.target) for node in graph.nodes if node.op == "call_module"}


def _remove(module: nn.Module, name: str, *, keep: bool) -> None:
    """Delete a submodule that nothing calls any more, or only its own parameters where its children are to be kept."""
    if keep:
        module.get_submodule(name)._parameters.clear()
    elif any(True for _ in module.get_submodule(name).parameters()):
        parent, _, child = name.rpartition(".")
        del module.get_submodule(parent)._modules[child]


def _replace(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)


def _relative(name: str, parent: str) -> str:
    return name[len(parent) + 1 :] if parent else name
