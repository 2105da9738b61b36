"""Finds the places of a network where a graft can be attached. Does not know what a graft is.

The unit of placement is a module that owns parameters, directly or because it reads those of children that it
never calls (as attention does with its output projection). Normalisations and other scales are not units: they
count as growable where a span crosses them. Sites are

- ``beside`` every unit that is given a floating tensor and returns one;
- ``after`` every unit, by default only where ``beside`` cannot be: at embeddings, mostly;
- ``after`` every module that adds to a residual stream, a transformer's block for one: there a graft is one block more;
- spans from each unit to the next one that its output flows into (only these open a bottleneck), and on request to
  the one after that.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType

from torch import nn

from esper.errors import SiteError
from esper.surgery.graft import Grafts
from esper.surgery.names import above
from esper.surgery.ports import Ports
from esper.surgery.site import Port, Site
from esper.surgery.site_map import SiteMap, SiteRow
from esper.surgery.spans import Crossings, spans_among
from esper.surgery.trace import Call, TensorFacts, Trace
from esper.surgery.units import Holding, holdings, is_scale

__all__ = ["SiteMap", "SiteRow", "discover"]

NOTHING: Mapping[str, str] = MappingProxyType({})
_GUESSED = "The pass ran without gradients: what feeds what is guessed from the order of calls."


@dataclass(frozen=True)
class _Unit:
    """A module where a graft might be placed; ``source`` and ``target`` say in words where they are no port."""

    name: str
    calls: tuple[Call, ...]
    source: Port | str
    target: Port | str
    scale: bool

    @property
    def site(self) -> Site | str:
        """The site beside this unit, or why there is none."""
        if isinstance(self.target, str):
            return self.target
        if isinstance(self.source, str):
            return self.source
        if not all(_same_examples(call, self.source, call, self.target) for call in self.calls):
            return "its output holds another number of examples than its input"
        return Site(exit=self.name, source=self.source, target=self.target)

    @property
    def after(self) -> Site | None:
        """The site after this unit, where its output can be added to."""
        if isinstance(self.target, str):
            return None
        return Site(exit=self.name, source=self.target, target=self.target, attachment="after")


def discover(trace: Trace, *, blocked: Mapping[str, str] = NOTHING) -> SiteMap:
    """The sites of the traced network, and for every module with parameters whether it can grow, or why not.

    Spans named in ``blocked`` are left out; its values say why. Raises SiteError when there is no site at all, with
    the reasons.
    """
    held = holdings(trace)
    units = _units(trace, held)
    placed = [unit for unit in units if not unit.scale]
    spans, wide = _spans(placed, reach=1), _spans(placed, reach=2)
    beside = [unit.site for unit in placed if isinstance(unit.site, Site)]
    after = [unit.after for unit in placed if unit.after is not None]
    beside_them = {site.exit for site in beside}
    only_after = [site for site in after if site.exit not in beside_them]
    deeper = _deeper(trace, {unit.name for unit in units})
    sites = _ordered(trace, [*beside, *only_after, *deeper, *(_span_site(*span) for span in spans)])
    offers = _ordered(trace, {*sites, *after, *(_span_site(*span) for span in wide)})
    sites, offers = _without(sites, blocked), _without(offers, blocked)
    rows = _Rows(trace, sum(h.params for h in held), {unit.name: unit for unit in units}, spans, blocked)
    site_map = SiteMap(
        rows=tuple(map(rows.row, held)),
        sites=sites,
        offers=offers,
        runs={site.name: _runs(trace, site) for site in offers},
        droppable=frozenset(unit.name for unit in placed if _returns_one_tensor(unit)) - trace.exposed,
        params=rows.total,
        macs=trace.macs,
        remark=_remark(trace, blocked),
        streams=tuple(site.exit for site in deeper if len(trace.by_module[site.exit]) == 1),
    )
    if not sites:
        raise SiteError(_nowhere(trace, site_map))
    return site_map


def _without(sites: tuple[Site, ...], blocked: Mapping[str, str]) -> tuple[Site, ...]:
    return tuple(site for site in sites if site.name not in blocked)


def _remark(trace: Trace, blocked: Mapping[str, str]) -> str:
    guessed = "" if trace.has_graph else _GUESSED
    if not blocked:
        return guessed
    reason = next(iter(blocked.values()))
    number = "one span is" if len(blocked) == 1 else f"{len(blocked)} spans are"
    return f"{guessed} {number} left out, which could not be folded: {reason}.".strip()


def _units(trace: Trace, held: list[Holding]) -> list[_Unit]:
    names = dict.fromkeys(holding.unit for holding in held if holding.unit is not None)
    ports = Ports(trace)
    found = []
    for name in names:
        module, calls = trace.model.get_submodule(name), trace.by_module[name]
        whole = "it is the whole model: its parts can grow" if not name and len(names) > 1 else ""
        source = whole or _agreed([_source(ports, call) for call in calls])
        target = whole or _refusal(trace, module, calls) or _agreed([_target(ports, call) for call in calls])
        found.append(_Unit(name, calls, source, target, is_scale(module, calls)))
    return found


def _deeper(trace: Trace, units: set[str]) -> list[Site]:
    """The sites after modules, no units themselves, each call of which ends one block of a residual stream."""
    ports, found = Ports(trace), []
    for name, calls in trace.by_module.items():
        module = trace.model.get_submodule(name)
        if not name or name in units or not all(call.stream for call in calls):
            continue
        target = _refusal(trace, module, calls) or _agreed([_target(ports, call) for call in calls])
        if not isinstance(target, str):
            found.append(Site(exit=name, source=target, target=target, attachment="after"))
    return found


def _source(ports: Ports, call: Call) -> Port | str:
    return ports.read(call, call.source) if call.source else "it is given no floating tensor"


def _target(ports: Ports, call: Call) -> Port | str:
    return ports.read(call, call.target) if call.target else "it returns no floating tensor"


def _returns_one_tensor(unit: _Unit) -> bool:
    return all(call.target is not None and call.target.where is None for call in unit.calls)


def _refusal(trace: Trace, module: nn.Module, calls: Iterable[Call]) -> str:
    """Why nothing may be added to the output of these calls, empty if something may."""
    if isinstance(module, (nn.Sequential, nn.ModuleList)):
        return "it takes every child for a layer of its own"
    if _has(module, "grafts") and not isinstance(module._modules.get("grafts"), Grafts):
        return "it has something named 'grafts' already; rename that to grow here"
    if trace.has_graph and not all(c.target is None or c.target.requires_grad for c in calls):
        return "its output carries no gradient: it is frozen, and so is all before it"
    if isinstance(module, nn.RNNBase) and any(c.target is not None and c.target.where != 0 for c in calls):
        return "it works on packed sequences"
    if all(call.target is not None and not call.used for call in calls):
        return "nothing that the model returns depends on its first output"
    return ""


def _has(module: nn.Module, name: str) -> bool:
    """Whether a module has an attribute; to list all of them takes longer."""
    own = vars(module)
    held = (own, own["_parameters"], own["_buffers"], own["_modules"], *map(vars, type(module).__mro__))
    return any(name in names for names in held)


def _agreed(ports: list[Port | str]) -> Port | str:
    """The first port, if all have its kind and width: lengths may differ from call to call."""
    first = ports[0]
    for port in ports:
        if isinstance(first, str) or isinstance(port, str):
            return first if isinstance(first, str) else port
        if (port.kind, port.width, port.batch_dim) != (first.kind, first.width, first.batch_dim):
            return f"it is called with different layouts: {first}, and {port}"
    return first


def _spans(units: list[_Unit], *, reach: int) -> list[tuple[_Unit, _Unit]]:
    """Pairs of units, each called once and none inside another, that a span can bridge."""
    around = {outer for unit in units for outer in above(unit.name)} - {""}
    single = {unit.calls[0].order: unit for unit in units if len(unit.calls) == 1 and unit.name not in around}
    pairs = spans_among([unit.calls[0] for unit in single.values()], reach=reach)
    ends = [(single[entry.order], single[exit_.order]) for entry, exit_ in pairs]
    return [(a, b) for a, b in ends if _bridgeable(a, b)]


def _bridgeable(entry: _Unit, exit_: _Unit) -> bool:
    if isinstance(entry.source, str) or isinstance(exit_.target, str):
        return False
    return _same_examples(entry.calls[0], entry.source, exit_.calls[0], exit_.target)


def _same_examples(reads: Call, source: Port, writes: Call, target: Port) -> bool:
    return _num_examples(reads.source, source) == _num_examples(writes.target, target)


def _num_examples(facts: TensorFacts | None, port: Port) -> int:
    assert facts is not None
    return facts.shape[port.batch_dim]


def _span_site(entry: _Unit, exit_: _Unit) -> Site:
    assert isinstance(entry.source, Port)
    assert isinstance(exit_.target, Port)
    return Site(exit=exit_.name, source=entry.source, target=exit_.target, entry=entry.name)


def _ordered(trace: Trace, sites: Iterable[Site]) -> tuple[Site, ...]:
    """In the order of the exits' first calls; at one exit the nearest entry first."""

    def place(site: Site) -> tuple[int, int, str]:
        first, last = trace.by_module[site.entry][0], trace.by_module[site.exit][0]
        return last.order, -first.order, site.name

    return tuple(sorted(sites, key=place))


def _runs(trace: Trace, site: Site) -> float:
    """How often a graft at this site runs for one example."""
    calls = trace.by_module[site.exit]
    return sum(_num_examples(call.target, site.target) for call in calls) / trace.batch_size


@dataclass(frozen=True)
class _Rows:
    """Writes the table of modules: ``total`` parameters, units by name, spans between them, and those ``blocked``."""

    trace: Trace
    total: int
    units: dict[str, _Unit]
    spans: list[tuple[_Unit, _Unit]]
    blocked: Mapping[str, str]

    def row(self, holding: Holding) -> SiteRow:
        unit = None if holding.unit is None else self.units[holding.unit]
        never = False, "never called in the traced batch"
        growable, note = never if unit is None else self._verdict(unit)
        if unit is not None and unit.name != holding.module:
            note = f"its weights are read by {unit.name or 'the model'} without a call: {note}"
        if holding.params == 0:
            note = f"its weights are counted at another module: {note}"
        return SiteRow(
            module=holding.module,
            class_name=type(self.trace.model.get_submodule(holding.module)).__name__,
            params=holding.params,
            share=holding.params / self.total if self.total else 0.0,
            growable=growable,
            note=note,
        )

    def _verdict(self, unit: _Unit) -> tuple[bool, str]:
        site = "it only scales features" if unit.scale else unit.site
        if isinstance(site, Site):
            times = f", called {len(unit.calls)} times (no spans)" if len(unit.calls) > 1 else ""
            return True, f"{site.source} → {site.target}{times}"
        if unit.after is not None and not unit.scale:
            return True, f"only after it ({unit.after.target}): {site}"
        blocked = []
        for number in self._crossings.across(unit.calls):
            name = _span_site(*self.spans[number]).name
            if name not in self.blocked:
                return True, f"only by a span, {name}: {site}"
            blocked.append(name)
        why_not = (
            f", and {blocked[0]} across it could not be folded: {self.blocked[blocked[0]]}" if blocked else ""
        )
        return False, f"{site}{why_not}"

    @cached_property
    def _crossings(self) -> Crossings:
        return Crossings(self.trace, [(entry.calls[0], exit_.calls[0]) for entry, exit_ in self.spans])


def _nowhere(trace: Trace, site_map: SiteMap) -> str:
    if not trace.calls:
        return (
            "there is no place to grow: the model called none of its modules. Let evaluate and the closure call "
            "the very model that was given, as in model(inputs)"
        )
    reasons = "".join(f"\n  {row.module or 'the model'}: {row.note}" for row in site_map.rows[:8])
    return f"there is no place to grow: {reasons or 'the model has no parameters'}"
