"""Finds attention whose heads can go one by one. Does not know why they go.

A head's share of query, key and value layers, or of one that makes all three, and of the layer that reads them, is
sliced like other units. Whether that is right is not read from the code, which masks and rotary positions make hard to
trace: it is tried.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

from torch import nn

from esper.surgery.block import ATTENTION, Block, Layer, Ref
from esper.surgery.head_trial import NUM_ENDS, Attention, Trial
from esper.surgery.isolation import isolated
from esper.surgery.names import common_parent
from esper.surgery.one_pass import AllSeen, one_pass
from esper.surgery.site import Site
from esper.surgery.trace import Trace
from esper.surgery.unit_axes import consumer_of, flaw_of, producer_of, shared_modules


def find_heads(trace: Trace, spans: Iterable[Site], run: Callable[[], object]) -> tuple[Block, ...]:
    """One block for each attention among ``spans`` whose heads can go; its units are features, whole heads of them.

    ``run`` makes the pass that was traced once more; it ends as soon as all has been seen.
    """
    waiting = list(_candidates(trace, list(spans)))
    if not waiting:
        return ()
    search = _Search(trace.model, waiting)
    with isolated(trace.model, eval_mode=True), one_pass(trace.model) as stack:
        for holder in dict.fromkeys(attention.holder for attention in waiting):
            hook = partial(search.look, holder)
            handle = trace.model.get_submodule(holder).register_forward_pre_hook(hook, with_kwargs=True)
            stack.callback(handle.remove)
        run()
    return tuple(search.found[a.consumer] for a in waiting if a.consumer in search.found)


class _Search:
    """Tries attention on what its module is given, at the first call."""

    def __init__(self, model: nn.Module, waiting: Iterable[Attention]) -> None:
        self.found: dict[str, Block] = {}
        self._model = model
        self._waiting: dict[str, list[Attention]] = defaultdict(list)
        for attention in waiting:
            self._waiting[attention.holder].append(attention)
        self._busy = False

    def look(self, holder: str, module: nn.Module, args: Any, kwargs: Any) -> None:
        """``module`` is about to be called."""
        if self._busy:
            return
        self._busy = True
        for attention in self._waiting.pop(holder, ()):
            width = self._apart(module, attention, args, kwargs)
            if width is not None:
                self.found[attention.consumer] = _block(self._model, attention, width)
        self._busy = False
        if not self._waiting:
            raise AllSeen

    def _apart(self, module: nn.Module, attention: Attention, args: Any, kwargs: Any) -> int | None:
        """The width of a head, where heads can go one by one."""
        try:
            trial = Trial(module, attention, args, kwargs)
            width = trial.head_width()
            return width if width is not None and trial.heads_are_apart(width) else None
        except Exception:  # noqa: BLE001 - with fewer heads a forward pass raises whatever its author chose
            return None


def _candidates(trace: Trace, spans: list[Site]) -> Iterator[Attention]:
    """Layers between which heads may be: three of one width, or one of three times that, feed another one only."""
    shared = shared_modules(trace.model)
    entries: dict[str, list[str]] = defaultdict(list)
    exits: dict[str, list[str]] = defaultdict(list)
    for site in spans:
        entries[site.exit].append(site.entry)
        exits[site.entry].append(site.exit)
    for consumer, before in entries.items():
        if not _is_linear(trace, consumer, consumer_of, shared):
            continue
        reads = consumer_of(trace.model.get_submodule(consumer))
        assert reads is not None
        end = trace.by_module[consumer][0]
        for parts in (1, NUM_ENDS):
            producers = [
                name
                for name in before
                if _makes(trace, name, shared) == reads.units * parts
                and all(e == consumer or trace.by_module[e][0].depends_on(end) for e in exits[name])
            ]
            producers.sort(key=lambda name: trace.by_module[name][0].order)
            if len(producers) * parts == NUM_ENDS:
                holder = _holder(trace, [*producers, consumer])
                yield Attention(holder, tuple(producers), consumer, reads.units)


def _makes(trace: Trace, name: str, shared: frozenset[str]) -> int:
    """How many features a linear layer makes; 0 for what is none."""
    if not _is_linear(trace, name, producer_of, shared):
        return 0
    end = producer_of(trace.model.get_submodule(name))
    return 0 if end is None else end.units


def _is_linear(trace: Trace, name: str, as_end: Callable[..., Any], shared: frozenset[str]) -> bool:
    """Whether it is a plain linear layer, called once; one that is sharded is not."""
    module = trace.model.get_submodule(name)
    if len(trace.by_module[name]) != 1:
        return False
    # Not by its name: to ask for a parametrised weight is to compute it, which moves what spectral norm keeps.
    weight = module._parameters.get("weight")
    end = as_end(module) if type(weight) is nn.Parameter else None
    return end is not None and end.kind == "Linear" and not flaw_of(trace.model, name, as_end, shared=shared)


def _holder(trace: Trace, names: list[str]) -> str:
    """The smallest module that holds all and has a forward."""
    *others, last = names
    return min((common_parent(trace.model, name, last) for name in others), key=len)


def _block(model: nn.Module, attention: Attention, width: int) -> Block:
    ends = [producer_of(model.get_submodule(name)) for name in attention.producers]
    reads = consumer_of(model.get_submodule(attention.consumer))
    assert reads is not None
    producers = [
        Layer("producer", end.kind, (Ref(-1),), end.options, name, attention.parts)
        for end, name in zip(ends, attention.producers, strict=True)
        if end is not None
    ]
    number = len(producers)
    between = Layer("function", ATTENTION, tuple(map(Ref, range(number))), (("width", width),))
    last = Layer("consumer", reads.kind, (Ref(number),), reads.options, attention.consumer)
    counts = attention.counts(model.get_submodule(attention.holder), width)
    return Block(layers=(*producers, between, last), width=reads.units, multiple=width, counts=counts)
