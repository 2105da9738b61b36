"""Turns grafts into plain PyTorch: afterwards no class and no function of esper is left in the model.

A graft at a layer that is one function of its weights makes a ``torch.fx.GraphModule`` in that layer's place. At any
other module it becomes a forward hook made by ``torch.fx``, so that whatever else the host asks of the module goes on.
A graft across a span is written into the forward pass of the smallest module that holds both ends. Does not know why
a graft is there.
"""

from __future__ import annotations

import copy
import inspect
import operator
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from functools import partial
from typing import Any, Literal, NamedTuple

import torch.nn.functional as F
from torch import Tensor, fx, nn

from esper.errors import SiteError
from esper.surgery.forward_graph import flaws, follow, graph_of, keep
from esper.surgery.graft import Graft, Grafts, all_grafts, grafts_of, hooks_of_users, is_cut, release
from esper.surgery.likeness import Alike
from esper.surgery.names import above, common_parent, relative
from esper.surgery.site import Site
from esper.surgery.structure import first_input, first_output
from esper.surgery.trace import Trace
from esper.surgery.widening import is_widening

Kind = Literal["tensor", "tuple", "named tuple", "list", "dict"]
Key = int | str
PLAIN = (bool, int, float, str, tuple)


class Form(NamedTuple):
    """How an exit or entry module was called: where the grafts read, and what it returned.

    ``source`` is a position among the arguments, or a keyword. Of a collection of ``num_items`` the grafts add to
    ``item``: a position, a key, or the name of a named tuple's field.
    """

    source: Key
    kind: Kind = "tensor"
    num_items: int = 0
    item: Key = 0


class _End(NamedTuple):
    """One exit module, what was attached there, and the numbers of the forward hooks that saw the grafts' work."""

    exit: str
    cut: bool
    grafts: list[Graft]
    later_hooks: list[int]

    @property
    def has_span(self) -> bool:
        """Whether one of the grafts reads the input of another module."""
        return any(graft.site.is_span for graft in self.grafts)

    @property
    def is_silent(self) -> bool:
        """Whether nothing reads the module's own output any more."""
        return self.cut and self.grafts[0].site.attachment == "beside"


def fold(model: nn.Module, forms: Mapping[str, Form]) -> int:
    """Fold every graft of ``model`` in place and return how many there were.

    ``forms`` are those that `observe` found. The function computed stays the same, up to rounding. An
    ``nn.TransformerEncoder`` leaves its fast path for good, which would pass by what is not its own: positions
    masked as padding then hold numbers instead of zeros in eval mode, as they always do in training.
    """
    exits = list(dict.fromkeys(graft.site.exit for _, graft in all_grafts(model)))
    ends = [_end(model, name) for name in exits]
    for end in ends:
        release(model, end.exit)  # all of them first: a tap is a hook on the module that it reads from
    for end in sorted(ends, key=lambda end: -end.exit.count(".")):  # what lies inside a module first
        _leave_fast_path(model, end.exit)
        _fold_end(model, end, forms[end.exit])
    _fold_spans(model, [end for end in ends if end.has_span], forms)
    return sum(len(end.grafts) for end in ends)


def obstacles(trace: Trace, spans: Iterable[Site]) -> dict[str, str]:
    """Why a graft across a span could not be folded, by the span's name; spans that could be are missing."""
    model, found = trace.model, {}
    by_parent: dict[str, list[Site]] = defaultdict(list)
    for site in spans:
        parent = common_parent(model, site.entry, site.exit)
        if all(trace.within(parent, name) for name in (site.entry, site.exit)):
            by_parent[parent].append(site)
        else:
            found[site.name] = f"its ends are not called by the forward of {parent or 'the model'}"
    flawed = Alike(flaws)
    for parent, sites in by_parent.items():
        ends = {relative(name, parent) for site in sites for name in (site.entry, site.exit)}
        wrong = flawed(model.get_submodule(parent), ends)
        for site in sites:
            ours = (wrong.get(relative(name, parent)) for name in (site.entry, site.exit))
            if flaw := next(filter(None, ours), None):
                found[site.name] = f"the forward of {parent or 'the model'} {flaw}"
    return found


def observe(model: nn.Module, run: Callable[[], object]) -> dict[str, Form]:
    """How the modules at the ends of grafts are called, by name; ``run`` makes one forward pass or more.

    Raises SiteError for one that is not called.
    """
    forms: dict[str, Form] = {}

    def watch(name: str, _: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        forms[name] = _form(args, kwargs, output)

    ends = {name for _, graft in all_grafts(model) for name in (graft.site.entry, graft.site.exit)}
    with ExitStack() as stack:
        for name in ends:
            handle = model.get_submodule(name).register_forward_hook(partial(watch, name), with_kwargs=True)
            stack.callback(handle.remove)
        run()
    for name in sorted(ends - set(forms)):
        raise SiteError(f"{name} carries a graft but was not called; it cannot be folded")
    return forms


def _form(args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Form:
    given: list[tuple[Key, Any]] = [*enumerate(args), *kwargs.items()]
    source = next((key for key, value in given if value is first_input(args, kwargs)), 0)
    target = first_output(output)
    if target is None or isinstance(output, Tensor):
        return Form(source)
    kind, items = _items(output)
    return Form(source, kind, len(items), next(key for key, value in items if value is target))


def _items(output: Any) -> tuple[Kind, list[tuple[Key, Any]]]:
    if isinstance(output, Mapping):
        return "dict", list(output.items())
    if isinstance(output, list):
        return "list", list(enumerate(output))
    if type(output) is tuple:
        return "tuple", list(enumerate(output))
    return "named tuple", list(zip(output._fields, output, strict=True))


def _end(model: nn.Module, exit_name: str) -> _End:
    host = model.get_submodule(exit_name)
    return _End(exit_name, is_cut(model, exit_name), grafts_of(model, exit_name), _later_hooks(host))


def _fold_end(model: nn.Module, end: _End, form: Form) -> None:
    host = model.get_submodule(end.exit)
    if not end.has_span and end.exit and _can_be_replaced(host, end, form):
        grown = _in_its_place(host, end, form)
        for module in list(model.modules()):
            children = module._modules
            children.update({name: grown for name, child in children.items() if child is host})
        return
    host.add_module("grafts", nn.ModuleList(graft.body for graft in end.grafts))
    if not end.has_span:
        host.register_forward_hook(_as_hook(host, end, form), with_kwargs=True)
        for number in end.later_hooks:
            host._forward_hooks[number] = host._forward_hooks.pop(number)


def _later_hooks(host: nn.Module) -> list[int]:
    grafts = host._modules["grafts"]
    assert isinstance(grafts, Grafts)
    assert grafts.handle is not None
    numbers = list(host._forward_hooks)
    return numbers[numbers.index(grafts.handle.id) + 1 :]


def can_drop(model: nn.Module, exit_name: str) -> bool:
    """Whether folding would leave nothing of a grown module, which returns one tensor, were its own path cut."""
    host, grafts = model.get_submodule(exit_name), grafts_of(model, exit_name)
    if any(graft.site.block is not None and graft.site.block.bound for graft in grafts):
        return False
    if all(
        is_widening(graft) for graft in grafts
    ):  # more of the same kind is no reason to be without the old
        return False
    if any(graft.site.is_span for graft in grafts):
        return True
    of_users = hooks_of_users(host)
    return bool(exit_name) and not of_users and "forward" not in vars(host) and _names_all(host)


def _can_be_replaced(host: nn.Module, end: _End, form: Form) -> bool:
    if host._forward_hooks or host._forward_pre_hooks or "forward" in vars(host):
        return False
    return _function(host) is not None or (end.is_silent and form.kind == "tensor" and _names_all(host))


def _names_all(host: nn.Module) -> bool:
    parameters = inspect.signature(host.forward).parameters.values()
    return all(p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in parameters)


def _in_its_place(host: nn.Module, end: _End, form: Form) -> fx.GraphModule:
    """A module that does what ``host``, a function of its weights if it is needed at all, did with its grafts."""
    graph = fx.Graph()
    inputs = _placeholders(graph, host)
    root: dict[str, Any] = {f"grafts.{index}": graft.body for index, graft in enumerate(end.grafts)}
    own = None if end.is_silent else _own_path(graph, host, inputs, root)
    x = inputs[form.source] if isinstance(form.source, int) else _named(inputs, form.source)
    graph.output(_total(graph, end, own, lambda _: x, ""))
    grown = fx.GraphModule(root, graph, type(host).__name__)
    plain = {name: value for name, value in vars(host).items() if isinstance(value, PLAIN)}
    keep(grown, {name: value for name, value in plain.items() if name not in vars(grown)})
    return grown.train(host.training)


def _placeholders(graph: fx.Graph, host: nn.Module) -> list[fx.Node]:
    nodes = []
    for name, parameter in inspect.signature(host.forward).parameters.items():
        default = () if parameter.default is inspect.Parameter.empty else (parameter.default,)
        nodes.append(graph.create_node("placeholder", name, default))
    return nodes


def _named(inputs: list[fx.Node], name: str) -> fx.Node:
    return next(node for node in inputs if node.target == name)


def _own_path(graph: fx.Graph, host: nn.Module, inputs: list[fx.Node], root: dict[str, Any]) -> fx.Node:
    """The host's function; its weights keep their names."""
    root.update(host.named_parameters(recurse=False))
    known = _function(host)
    assert known is not None
    function, names, rest = known
    weights = [graph.get_attr(name) if name in root else None for name in names]
    return graph.call_function(function, (*inputs, *weights, *rest))


def _function(host: nn.Module) -> tuple[Callable[..., Tensor], tuple[str, ...], tuple[Any, ...]] | None:
    """The function that a layer is of its input, the names of its weights, and what else it is given."""
    if type(host) is nn.Linear:
        return F.linear, ("weight", "bias"), ()
    if type(host) is nn.Embedding:
        options = (host.padding_idx, host.max_norm, host.norm_type, host.scale_grad_by_freq, host.sparse)
        return F.embedding, ("weight",), options
    for kind, function in ((nn.Conv1d, F.conv1d), (nn.Conv2d, F.conv2d)):
        if type(host) is kind and host.padding_mode == "zeros":
            rest = (host.stride, host.padding, host.dilation, host.groups)
            return function, ("weight", "bias"), rest
    return None


def _as_hook(host: nn.Module, end: _End, form: Form) -> Callable[..., Any]:
    """A forward hook that adds the grafts' outputs; it runs the bodies that ``host.grafts`` holds."""
    graph = fx.Graph()
    _, args, kwargs, output = (graph.placeholder(name) for name in ("module", "args", "kwargs", "output"))
    where = args if isinstance(form.source, int) else kwargs

    def read(_: Graft) -> fx.Node:
        return graph.call_function(operator.getitem, (where, form.source))

    total = _total(graph, end, _part(graph, output, form), read, "")
    graph.output(_whole(graph, output, form, total))
    grown = fx.GraphModule(host, graph, type(host).__name__)
    follow(grown, host)
    hook: Callable[..., Any] = grown.forward
    return hook


def _total(
    graph: fx.Graph, end: _End, own: fx.Node | None, read: Callable[[Graft], fx.Node], prefix: str
) -> fx.Node:
    """The sum of the own output and those of all grafts, or of the grafts alone after a cut."""
    total = None if end.cut else own
    for index, graft in enumerate(end.grafts):
        x = (total or own) if graft.site.attachment == "after" else read(graft)
        update = graph.call_module(f"{prefix}grafts.{index}", (x,))
        if total is None:
            total = update
        else:
            cast = graph.call_method("type_as", (update, total))
            total = graph.call_function(operator.add, (total, cast))
    assert total is not None
    return total


def _part(graph: fx.Graph, output: fx.Node, form: Form) -> fx.Node:
    """What the grafts add to in the output of a module."""
    if form.kind == "tensor":
        return output
    if form.kind == "named tuple":
        return graph.call_function(getattr, (output, form.item))
    return graph.call_function(operator.getitem, (output, form.item))


def _whole(graph: fx.Graph, output: fx.Node, form: Form, total: fx.Node) -> Any:
    """The output of a module with ``total`` in its place."""
    match form.kind:
        case "tensor":
            return total
        case "named tuple":
            return graph.call_method("_replace", (output,), {str(form.item): total})
        case "tuple":
            others = range(form.num_items)
            return tuple(
                total if i == form.item else graph.call_function(operator.getitem, (output, i))
                for i in others
            )
    fresh = graph.call_function(copy.copy, (output,))
    graph.call_method("__setitem__", (fresh, form.item, total))
    return fresh


def _fold_spans(model: nn.Module, spans: list[_End], forms: Mapping[str, Form]) -> None:
    """Write spans into the forward pass of the modules that hold their ends, innermost first."""
    by_parent: dict[str, list[_End]] = defaultdict(list)
    for span in spans:
        parents = [common_parent(model, graft.site.entry, span.exit) for graft in span.grafts]
        by_parent[min(parents, key=len)].append(span)
    for parent in sorted(by_parent, key=lambda name: -name.count(".") - bool(name)):
        _rewrite(model.get_submodule(parent), parent, by_parent[parent], forms)


def _rewrite(module: nn.Module, parent: str, spans: list[_End], forms: Mapping[str, Form]) -> None:
    ends = [name for span in spans for graft in span.grafts for name in (graft.site.entry, span.exit)]
    graph = graph_of(module, [relative(name, parent) for name in ends])
    called, read = _called(graph), _read_by(graph)
    effects = {node for node in graph.nodes if not node.users and node.op != "get_attr"}
    for span in spans:
        _write(graph, span, parent, forms)
    grown = fx.GraphModule(module, graph, type(module).__name__)
    if any(span.cut for span in spans):
        grown.graph.eliminate_dead_code(lambda node: node in effects or node.is_impure())
        grown.recompile()
    follow(grown, module)
    vars(module)["forward"] = grown.forward
    left, still_read = _called(grown.graph), _read_by(grown.graph)
    for name in called - left:
        if any(other.startswith(f"{name}.") for other in still_read):
            continue
        _remove(
            module, name, {o[len(name) + 1 :].partition(".")[0] for o in left if o.startswith(f"{name}.")}
        )
    for name in read - still_read:
        _forget(module, name)


def _write(graph: fx.Graph, span: _End, parent: str, forms: Mapping[str, Form]) -> None:
    path, form = relative(span.exit, parent), forms[span.exit]
    end = _node(graph, path)
    users = list(end.users)

    def read(graft: Graft) -> fx.Node:
        source = forms[graft.site.entry].source
        entry = _node(graph, relative(graft.site.entry, parent))
        node = entry.args[source] if isinstance(source, int) else entry.kwargs[source]
        assert isinstance(node, fx.Node)
        return node

    with graph.inserting_before(end.next):
        total = _total(graph, span, _part(graph, end, form), read, f"{path}.")
        for user in users:
            if form.kind != "tensor" and user.target is operator.getitem:
                if user.args[1] == form.item:
                    user.replace_all_uses_with(total)
            else:
                _give(graph, user, end, _whole(graph, end, form, total))


def _give(graph: fx.Graph, user: fx.Node, end: fx.Node, whole: Any) -> None:
    node = graph.call_function(tuple, (whole,)) if isinstance(whole, tuple) else whole
    user.replace_input_with(end, node)


def _node(graph: fx.Graph, name: str) -> fx.Node:
    nodes: Iterable[fx.Node] = graph.nodes
    return next(node for node in nodes if node.op == "call_module" and node.target == name)


def _called(graph: fx.Graph) -> set[str]:
    return {str(node.target) for node in graph.nodes if node.op == "call_module"}


def _read_by(graph: fx.Graph) -> set[str]:
    return {str(node.target) for node in graph.nodes if node.op == "get_attr"}


def _remove(module: nn.Module, name: str, keep: set[str]) -> None:
    """Delete a submodule that nothing calls any more; those of its children that are to be kept stay in its place."""
    parent, _, child = name.rpartition(".")
    siblings = module.get_submodule(parent)._modules
    gone = module.get_submodule(name)
    if keep:
        siblings[child] = nn.ModuleDict({own: part for own, part in gone.named_children() if own in keep})
    elif any(True for _ in gone.parameters()):
        del siblings[child]


def _forget(module: nn.Module, name: str) -> None:
    """Delete a parameter that nothing reads any more; a list of parameters becomes a mapping of those that are left."""
    path, _, own = name.rpartition(".")
    owner = module.get_submodule(path)
    if owner._parameters.pop(own, None) is None or not isinstance(owner, nn.ParameterList):
        return
    parent, _, child = path.rpartition(".")
    siblings = module.get_submodule(parent)._modules
    siblings[child] = nn.ParameterDict(owner._parameters)
    if not owner._parameters:
        del siblings[child]


def _leave_fast_path(model: nn.Module, exit_name: str) -> None:
    for name in above(exit_name):
        module = model.get_submodule(name)
        if isinstance(module, nn.TransformerEncoder):
            module.use_nested_tensor = False
        elif isinstance(module, nn.TransformerEncoderLayer):
            module.activation_relu_or_gelu = 0
