"""What a network does with one batch: which modules are called, with what, and what feeds what.

Does not know which of them can be grown.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn

from esper.surgery.dependence import (
    Edge,
    ancestors_of,
    edges_of,
    is_stream,
    leaves_among,
    reachable_from,
)
from esper.surgery.graft import is_cut
from esper.surgery.multiply_adds import MultiplyAdds
from esper.surgery.readers import Readers, watched
from esper.surgery.structure import first_input, first_output

RECURRENT_OR_ATTENTION = (nn.RNNBase, nn.MultiheadAttention)


@dataclass(frozen=True)
class TensorFacts:
    """Shape and type of the tensor that a graft would read, or add to.

    ``where`` is the position or the name under which it was found; ``None`` for an output that is the tensor.
    """

    where: int | str | None
    shape: tuple[int, ...]
    dtype: torch.dtype
    requires_grad: bool


@dataclass(frozen=True)
class Call:
    """One call of a module; ``order`` counts calls as they begin, so that a module precedes its children.

    ``source`` is the first floating tensor among the arguments, ``target`` the first one in the output.
    ``used`` says whether anything that the model returned depends on ``target``, ``idle`` that nothing does on any
    tensor in the output. Bit ``k`` of ``ancestors`` says that the output depends on that of call ``k``. ``macs`` are
    the multiply-adds of the whole batch, those of modules called meanwhile left out. ``caller`` is the call during
    which this one began. ``stream`` says that ``target`` is ``source`` plus something, as at the end of a residual
    block, and that no call during this one ended there already.
    """

    order: int
    module: str
    source: TensorFacts | None
    target: TensorFacts | None
    used: bool
    ancestors: int
    idle: bool
    macs: int
    caller: int | None
    stream: bool = False

    def depends_on(self, other: Call) -> bool:
        """Whether the output of ``other`` flows into the output of this call."""
        return bool(self.ancestors >> other.order & 1)


@dataclass(frozen=True)
class Trace:
    """The calls of one forward pass.

    ``batch_size`` is that of the first recurrent or attention layer (which know their batch dimension), else
    the first dimension of the first tensor given to the model; ``macs`` are multiply-adds per example of such
    a batch. ``has_graph`` is false when the pass ran without gradients: then every call counts as depending
    on all that ended before it, and as used. ``read`` names the parameters that something depends on, ``exposed``
    the modules of which a parameter was read, if only for its dtype, while they were not at work.
    """

    model: nn.Module
    calls: tuple[Call, ...]
    batch_size: int
    macs: int
    has_graph: bool
    read: frozenset[str]
    exposed: frozenset[str]

    def within(self, outer: str, inner: str) -> bool:
        """Whether every call of module ``inner`` was made, directly or not, by module ``outer``."""
        calls = self.by_module.get(inner, ())
        return all(any(outer == other.module for other in self.callers(call)) for call in calls)

    def callers(self, call: Call) -> Iterator[Call]:
        """The calls during which this one was made, the innermost first."""
        while call.caller is not None and call.caller in self._by_order:
            call = self._by_order[call.caller]
            yield call

    @cached_property
    def _by_order(self) -> Mapping[int, Call]:
        return {call.order: call for call in self.calls}

    @property
    def idle_macs(self) -> int:
        """Multiply-adds per example of paths that have been cut, and of what fed only them."""
        idle = (c for c in self.calls if c.idle or is_cut(self.model, c.module))
        return sum(call.macs for call in idle) // self.batch_size

    @cached_property
    def by_module(self) -> Mapping[str, tuple[Call, ...]]:
        """The calls of each called module, by qualified name."""
        found: dict[str, list[Call]] = defaultdict(list)
        for call in self.calls:
            found[call.module].append(call)
        return {name: tuple(calls) for name, calls in found.items()}


def trace(model: nn.Module, run: Callable[[], object]) -> Trace:
    """Watch ``run()`` until the model's first call has returned, then end it.

    ``run`` may be a closure over one batch, or a whole evaluation: only the first batch is paid for. Where it
    never calls the model itself but only parts of it, all of it is watched. Gradients are on unless ``run``
    turns them off. Buffers and random streams are the caller's to put back (see `isolation.isolated`).
    """
    recorder = _Recorder(model)
    with ExitStack() as stack:
        stack.enter_context(torch.enable_grad())
        stack.enter_context(suppress(_PassEnded))
        stack.enter_context(recorder.counter)
        stack.enter_context(watched(model, recorder.readers.read))
        for name, module in model.named_modules():
            before, after = partial(recorder.before, name), partial(recorder.after, name)
            begin = partial(recorder.readers.begin, name)
            # Before hooks of the module's own, which are its work.
            stack.callback(module.register_forward_pre_hook(begin, prepend=True).remove)
            stack.callback(module.register_forward_pre_hook(before, with_kwargs=True).remove)
            stack.callback(module.register_forward_hook(after).remove)
        run()
    return recorder.result()


class _PassEnded(BaseException):
    """Ends a run after the model's first call; no handler of a user's catches it by accident."""


@dataclass
class _Record:
    """A call under way, and what it left when it ended; ``earlier`` are the calls that had ended by then."""

    module: str
    source: TensorFacts | None
    inputs: set[Edge]
    target: TensorFacts | None = None
    target_edges: set[Edge] = field(default_factory=set)
    outputs: set[Edge] = field(default_factory=set)
    caller: int | None = None
    earlier: int | None = None
    macs: int = 0
    source_edges: set[Edge] = field(default_factory=set)
    stream: bool = False


class _Recorder:
    """Hooks that write calls down while they happen."""

    def __init__(self, model: nn.Module) -> None:
        self.counter = MultiplyAdds()
        self.readers = Readers()
        self._model = model
        self._begin()

    def _begin(self) -> None:
        self._records: list[_Record] = []
        self._under_way: list[int] = []
        self._ended = 0
        self._first_dimension = 1
        self._batch_sizes: list[int] = []
        self._has_graph = torch.is_grad_enabled()
        self._macs_before = self._counted = self.counter.total
        self._returned: set[Edge] = set()
        self._streams: set[Edge] = set()

    def before(self, name: str, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """The call of a module begins."""
        if module is self._model:
            self._begin()
        if not self._records:
            self._has_graph = torch.is_grad_enabled()
            self._first_dimension = next((t.shape[0] for t in _tensors_in((args, kwargs)) if t.dim()), 1)
        tensor = first_input(args, kwargs)
        source = None if tensor is None else _facts(tensor, [*enumerate(args), *kwargs.items()])
        if source is not None and len(source.shape) == 3 and isinstance(module, RECURRENT_OR_ATTENTION):
            self._batch_sizes.append(source.shape[0 if module.batch_first else 1])
        self._attribute()
        caller = self._under_way[-1] if self._under_way else None
        self._under_way.append(len(self._records))
        given, read = edges_of(_tensors_in((args, kwargs))), edges_of([] if tensor is None else [tensor])
        self._records.append(_Record(name, source, given, caller=caller, source_edges=read))

    def after(self, name: str, module: nn.Module, _: object, output: object) -> None:
        """The call of a module ends; the model's own call ends the run."""
        self.readers.end(name)
        self._attribute()
        order = self._under_way.pop()
        while self._records[order].module != name:  # calls that ended by an exception which the model caught
            order = self._under_way.pop()
        record = self._records[order]
        record.earlier, self._ended = self._ended, self._ended | 1 << order
        record.outputs = edges_of(_tensors_in(output)) - record.inputs
        tensor = first_output(output)
        if tensor is not None:
            record.target = _facts(tensor, _named_items(output))
            record.target_edges = edges_of([tensor])
            known = record.target_edges & self._streams
            record.stream = not known and is_stream(record.target_edges, record.source_edges)
            self._streams |= record.target_edges if record.stream else set()
        if not self._under_way:
            self._returned |= edges_of(_tensors_in(output))
        if module is self._model:
            raise _PassEnded

    def result(self) -> Trace:
        """All that was written down."""
        ancestors = ancestors_of([record.outputs for record in self._records])
        used = reachable_from(self._returned)
        everything = reachable_from(edge for record in self._records for edge in record.outputs)
        read = {id(leaf) for leaf in leaves_among(everything)}
        batch_size = max(1, self._batch_sizes[0] if self._batch_sizes else self._first_dimension)
        return Trace(
            model=self._model,
            calls=tuple(self._call(order, ancestors[order], used) for order in self._orders()),
            batch_size=batch_size,
            macs=(self.counter.total - self._macs_before) // batch_size,
            has_graph=self._has_graph,
            read=frozenset(name for name, p in self._model.named_parameters() if id(p) in read),
            exposed=frozenset(self.readers.exposed),
        )

    def _attribute(self) -> None:
        """What has been computed since a call last began or ended was computed by the innermost one under way."""
        fresh, self._counted = self.counter.total - self._counted, self.counter.total
        if self._under_way:
            self._records[self._under_way[-1]].macs += fresh

    def _orders(self) -> Iterator[int]:
        return (order for order, record in enumerate(self._records) if record.earlier is not None)

    def _call(self, order: int, ancestors: int, used: set[Edge]) -> Call:
        record = self._records[order]
        assert record.earlier is not None
        known = self._has_graph and bool(self._returned)
        return Call(
            order=order,
            module=record.module,
            source=record.source,
            target=record.target,
            used=not known or bool(record.target_edges & used),
            # A container and its last child return one tensor: the one that ended first is the source.
            ancestors=record.earlier & ancestors if self._has_graph else record.earlier,
            idle=known and not record.outputs & used,
            macs=record.macs,
            caller=record.caller,
            stream=record.stream,
        )


def _facts(tensor: Tensor, items: list[tuple[int | str, object]]) -> TensorFacts:
    where = next((key for key, value in items if value is tensor), None)
    return TensorFacts(where, tuple(tensor.shape), tensor.dtype, tensor.requires_grad)


def _named_items(output: object) -> list[tuple[int | str, object]]:
    if isinstance(output, Mapping):
        return list(output.items())
    return list(enumerate(output)) if isinstance(output, (tuple, list)) else []


def _tensors_in(value: object) -> Iterator[Tensor]:
    """All tensors in nested tuples, lists, mappings and dataclasses."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        yield from _tensors_in(tuple(value.values()))
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from _tensors_in(item)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        yield from _tensors_in([vars(value)[f.name] for f in dataclasses.fields(value)])
