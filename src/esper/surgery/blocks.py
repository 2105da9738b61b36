"""Finds blocks: layers whose units can become more, or fewer. Does not know what is done with them.

The forward pass of the smallest module that holds both ends is traced; from the consumer back to the producers every
operation must treat each unit alone, and nobody else may read what they pass on.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import lcm
from types import MappingProxyType
from typing import Any

from msgspec.structs import replace as replaced
from torch import fx, nn

from esper.surgery.attention import Heads, heads_before
from esper.surgery.block import ATTENTION, Block, Layer, Ref
from esper.surgery.block_graphs import calls_once, in_parts, whole
from esper.surgery.calls import Call, asks_batch_size, spelled
from esper.surgery.likeness import Alike
from esper.surgery.names import common_parent, relative
from esper.surgery.per_unit import Layout, after_function, after_layer, is_depthwise, options_of
from esper.surgery.site import Site
from esper.surgery.trace import Trace
from esper.surgery.unit_axes import End, consumer_of, flaw_of, producer_of, shared_modules

NOTHING: Mapping[str, str] = MappingProxyType({})
Node = fx.Node
Structure = Layout | tuple[Any, ...]


@dataclass(frozen=True)
class Blocks:
    """Blocks by the name of the span from their first producer to their consumer; why there is none elsewhere."""

    found: Mapping[str, Block] = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict)

    def placed(self, site: Site) -> Site:
        """The site with its block, where it has one."""
        return replace(site, block=self.found[site.name]) if site.name in self.found else site


def find_blocks(trace: Trace, spans: Iterable[Site], *, blocked: Mapping[str, str] = NOTHING) -> Blocks:
    """The blocks that ``spans`` reach across, and in plain words why others are none.

    Across spans named in ``blocked``, whose grafts could not be folded otherwise, blocks are ``bound``; they are also
    looked for in parts of a forward pass.
    """
    found: dict[str, Block] = {}
    reasons: dict[str, str] = {}
    by_parent: dict[str, list[Site]] = defaultdict(list)
    for site in spans:
        by_parent[common_parent(trace.model, site.entry, site.exit)].append(site)
    shared, flows = shared_modules(trace.model), Alike(_flow)
    for parent, sites in by_parent.items():
        place = _Place(trace, parent, shared, flows)
        free, bound = [s for s in sites if s.name not in blocked], [s for s in sites if s.name in blocked]
        for name, block in (*_free(place, free), *_bound(place, bound)):
            if isinstance(block, Block):
                found[name] = block
            else:
                reasons[name] = block
    return Blocks(found, reasons)


@dataclass(frozen=True)
class _Place:
    """The module that holds both ends of some spans.

    ``shared`` are the `shared_modules` of the model; ``flows`` gives the graph of a forward pass, or why there is none.
    """

    trace: Trace
    parent: str
    shared: frozenset[str]
    flows: Alike[_Flow | str]

    @property
    def module(self) -> nn.Module:
        return self.trace.model.get_submodule(self.parent)

    def flaw(self, name: str, as_end: Callable[[nn.Module], End | None]) -> str:
        """Why the weights of a module cannot become larger or smaller."""
        return flaw_of(self.trace.model, name, as_end, shared=self.shared)

    def ends(self, sites: Iterable[Site]) -> list[str]:
        """Names of the ends of spans, inside this module."""
        return [relative(name, self.parent) for site in sites for name in (site.entry, site.exit)]


def _free(place: _Place, sites: list[Site]) -> Iterator[tuple[str, Block | str]]:
    if not sites:
        return
    flow = place.flows(place.module, place.ends(sites))
    for site in sites:
        if isinstance(flow, str):
            yield site.name, f"the forward of {place.parent or 'the model'} {flow}"
        else:
            yield site.name, _Search(place, flow, site).run()


def _bound(place: _Place, sites: list[Site]) -> Iterator[tuple[str, Block | str]]:
    possible = [s for s in sites if not (place.flaw(s.entry, producer_of) or place.flaw(s.exit, consumer_of))]
    pairs = in_parts(place.module, place.ends(possible)) if possible else []
    for site in sites:
        ends = place.ends([site])
        pair = next((pair for pair in pairs if all(calls_once(graph, ends) for graph in pair)), None)
        if site not in possible or pair is None:
            yield site.name, f"no part of {place.parent or 'the model'} that holds it can be traced"
            continue
        first, second = (_Search(place, _Flow(graph), site).run() for graph in pair)
        if not isinstance(first, Block):
            yield site.name, first
        else:
            same = first == second
            yield site.name, replaced(first, bound=True) if same else "it depends on train or eval mode"


class _Flow:
    """A graph with the order of its nodes, and the calls of each module."""

    def __init__(self, graph: fx.Graph) -> None:
        self.order = {node: number for number, node in enumerate(graph.nodes)}
        self.calls: dict[str, list[Node]] = defaultdict(list)
        for node in graph.nodes:
            if node.op == "call_module":
                self.calls[str(node.target)].append(node)


def _flow(module: nn.Module, inside: Sequence[str]) -> _Flow | str:
    graph = whole(module, inside)
    return graph if isinstance(graph, str) else _Flow(graph)


class _Found(Exception):  # noqa: N818 - ends a search, and says why
    """Why there is no block here."""


class _Search:
    """Looks for the block of one span in the graph of the module that holds it."""

    def __init__(self, place: _Place, flow: _Flow, site: Site) -> None:
        self._place = place
        self._trace = place.trace
        self._prefix = f"{place.parent}." if place.parent else ""
        self._site = site
        self._flow = flow
        self._producers: list[Node] = []
        self._carried: set[Node] = set()

    def run(self) -> Block | str:
        """The block, or why there is none."""
        try:
            return self._block()
        except _Found as reason:
            return str(reason)

    def _block(self) -> Block:
        calls = self._flow.calls[relative(self._site.exit, self._place.parent)]
        if len(calls) != 1 or len(calls[0].all_input_nodes) != 1:
            raise _Found(f"{self._site.exit} is not called once, with one tensor")
        consumer = calls[0]
        if flaw := self._place.flaw(self._site.exit, consumer_of):
            raise _Found(flaw)
        heads = heads_before(consumer.all_input_nodes[0])
        if heads is not None and all(map(self._is_producer, heads.makers)):
            return self._attention(consumer, heads)
        self._walk_back(consumer.all_input_nodes[0])
        self._check_ends(consumer)
        return self._described(consumer)

    def _attention(self, consumer: Node, heads: Heads) -> Block:
        self._carried = {*heads.nodes, *heads.makers}
        for node in heads.makers:
            self._producers.append(node)
            self._check_sources(node)
        self._check_ends(consumer)
        ends, reads = [self._end(node) for node in self._producers], consumer_of(self._module(consumer))
        assert reads is not None
        calls = [self._trace.by_module[self._name(node)][0].target for node in heads.makers]
        if {end.units for end in ends} != {reads.units} or any(c is None or len(c.shape) != 3 for c in calls):
            raise _Found(
                f"{' and '.join(map(self._name, self._producers))} have other widths than what is read"
            )
        layers = [
            Layer("producer", end.kind, (Ref(-1),), end.options, self._name(node))
            for node, end in zip(self._producers, ends, strict=True)
        ]
        refs = tuple(Ref(self._producers.index(node)) for node in heads.makers)
        options = (("causal", heads.causal), ("scale", heads.scale), ("width", heads.width))
        between = Layer("function", ATTENTION, refs, options)
        last = Layer("consumer", reads.kind, (Ref(len(layers)),), reads.options, self._name(consumer))
        return Block((*layers, between, last), width=reads.units, multiple=heads.width)

    def _walk_back(self, last: Node) -> None:
        waiting = [last]
        while waiting:
            node = waiting.pop()
            if node in self._carried:
                continue
            self._carried.add(node)
            if self._is_producer(node):
                self._producers.append(node)
                self._check_sources(node)
            else:
                waiting += self._sources(node)

    def _check_sources(self, producer: Node) -> None:
        """Ends the walk at once: along a residual stream it would go on to the beginning."""
        first = self._producers[0]
        if len(producer.all_input_nodes) != 1:
            raise _Found(f"{self._name(producer)} is given more than one tensor")
        if producer.all_input_nodes != first.all_input_nodes:
            raise _Found(f"{self._name(producer)} and {self._name(first)} read different things")

    def _is_producer(self, node: Node) -> bool:
        if node.op != "call_module":
            return False
        module = self._module(node)
        return producer_of(module) is not None and not is_depthwise(module)

    def _sources(self, node: Node) -> list[Node]:
        if node.op == "call_module" and len(node.all_input_nodes) == 1:
            if self._has_state(node) and len(self._trace.by_module.get(self._name(node), ())) != 1:
                raise _Found(f"{self._name(node)} is not called once")
            return node.all_input_nodes
        if node.op in ("call_function", "call_method"):
            call = spelled(node)
            if isinstance(call, str):
                raise _Found(f"{self._words(node)} {call}")
            return call.tensors
        if node.op in ("placeholder", "get_attr"):
            raise _Found(f"{self._site.exit} reads something that no layer with units makes ({node.name})")
        raise _Found(
            f"{self._site.exit} reads {self._words(node)}, which is not known to treat each unit alone"
        )

    def _check_ends(self, consumer: Node) -> None:
        self._producers.sort(key=self._flow.order.__getitem__)
        names = [self._name(node) for node in self._producers]
        if not names or names[0] != self._site.entry:
            raise _Found(f"{self._site.exit} reads {' and '.join(names)}")
        for name in names:
            if flaw := self._place.flaw(name, producer_of):
                raise _Found(flaw)
            if len(self._trace.by_module.get(name, ())) != 1 or names.count(name) > 1:
                raise _Found(f"{name} is not called once")
        for node in self._carried:
            for user in node.users:
                if user is not consumer and user not in self._carried and not asks_batch_size(user):
                    raise _Found(f"{self._words(user)} also reads {self._words(node)}")

    def _described(self, consumer: Node) -> Block:
        ends = [self._end(node) for node in self._producers]
        if len({end.units for end in ends}) > 1:
            raise _Found(f"{' and '.join(map(self._name, self._producers))} have different widths")
        width = ends[0].units
        ordered = sorted(self._carried, key=self._flow.order.__getitem__)
        numbers = {node: number for number, node in enumerate(ordered)}
        layouts: dict[Node, Structure] = {}
        layers = []
        for node in ordered:
            layer, layouts[node] = self._layer(node, width, layouts, numbers)
            layers.append(layer)
        last = layouts[consumer.all_input_nodes[0]]
        assert isinstance(last, Layout)
        return self._finished(consumer, layers, last, width)

    def _layer(
        self, node: Node, width: int, layouts: dict[Node, Structure], numbers: dict[Node, int]
    ) -> tuple[Layer, Structure]:
        if node in self._producers:
            end, name = self._end(node), self._name(node)
            return Layer("producer", end.kind, (Ref(-1),), end.options, name), self._layout(node, end)
        sources = [other for other in self._sources(node) if other in layouts]
        layout = layouts[sources[0]]
        if any(layouts[other] != layout for other in sources):
            raise _Found(f"{self._words(node)} combines units that lie differently")
        if node.op != "call_module":
            return self._function(node, layout, numbers)
        module, name = self._module(node), self._name(node)
        after = "is given a tuple" if not isinstance(layout, Layout) else after_layer(module, layout, width)
        refs = (Ref(numbers[sources[0]]),)
        layer = Layer("layer", type(module).__name__, refs, options_of(module), name)
        return layer, self._checked(after, node)

    def _function(self, node: Node, layout: Structure, numbers: dict[Node, int]) -> tuple[Layer, Structure]:
        call = spelled(node)
        assert not isinstance(call, str)
        if call.name == "dropout":
            return _dropout(call, numbers), layout
        if call.name == "getitem" and isinstance(layout, Layout):
            call = Call("select", (call.args[0], 0, call.args[1]))
        args = tuple(Ref(numbers[arg]) if isinstance(arg, Node) else arg for arg in call.args)
        layer = Layer("function", call.name, args, call.options)
        if not isinstance(layout, Layout):
            return layer, layout[call.args[1]]
        after = after_function(call.name, call.plain, dict(call.options), layout)
        return layer, self._checked(after, node)

    def _checked(self, after: Layout | str, node: Node) -> Layout:
        if isinstance(after, str):
            raise _Found(f"{self._words(node)} {after}")
        return after

    def _finished(self, consumer: Node, layers: list[Layer], layout: Layout, width: int) -> Block:
        name, reads = self._name(consumer), consumer_of(self._module(consumer))
        assert reads is not None
        per_unit, rest = divmod(reads.units, width * layout.outer)
        axis = layout.ndim - 1 if reads.last else 1
        if axis != layout.axis or rest or (per_unit > 1 and not layout.flat):
            raise _Found(f"{name} reads other dimensions than the units")
        groups = {end.groups for end in (*map(self._end, self._producers), reads)} - {1}
        norms = [layer.of_class["num_groups"] for layer in layers if "num_groups" in layer.of_class]
        if len(groups) > 1 or (groups and norms):
            raise _Found(f"the groups between {self._site.entry} and {name} differ")
        last = Layer("consumer", reads.kind, (Ref(len(layers) - 1),), reads.options, name)
        return Block(
            layers=(*layers, last),
            width=width,
            outer=per_unit if layout.flat == "outer" else layout.outer,
            inner=per_unit if layout.flat == "inner" else 1,
            groups=next(iter(groups), 1),
            multiple=lcm(*groups, *(width // number for number in norms if isinstance(number, int))),
        )

    def _layout(self, node: Node, end: End) -> Structure:
        module, (call, *_) = self._module(node), self._trace.by_module[self._name(node)]
        assert call.target is not None
        ndim = len(call.target.shape)
        if not isinstance(module, nn.RNNBase):
            return Layout(ndim - 1 if end.last else 1, ndim)
        state = Layout(ndim - 1, ndim)
        return state._replace(outer=1 + module.bidirectional), (
            state,
            state,
        ) if module.mode == "LSTM" else state

    def _has_state(self, node: Node) -> bool:
        module = self._module(node)
        return any(True for _ in (*module.parameters(), *module.buffers()))

    def _end(self, node: Node) -> End:
        end = producer_of(self._module(node))
        assert end is not None
        return end

    def _name(self, node: Node) -> str:
        return f"{self._prefix}{node.target}"

    def _module(self, node: Node) -> nn.Module:
        return self._trace.model.get_submodule(self._name(node))

    def _words(self, node: Node) -> str:
        if node.op == "call_module":
            return f"{self._name(node)} ({type(self._module(node)).__name__})"
        return "what the model returns" if node.op == "output" else f"the operation {node.name}"


def _dropout(call: Call, numbers: dict[Node, int]) -> Layer:
    """``F.dropout`` in train or eval mode is the layer ``nn.Dropout``."""
    given = dict(zip(("p", "training"), call.args[1:], strict=False)) | dict(call.options)
    return Layer("layer", "Dropout", (Ref(numbers[call.args[0]]),), (("p", given.get("p", 0.5)),))
