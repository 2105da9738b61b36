"""Which module answers for which parameters. Does not know where grafts go."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from torch import nn

from esper.surgery.graft import Grafts
from esper.surgery.names import above
from esper.surgery.trace import Call, Trace

_NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)


@dataclass(frozen=True)
class Holding:
    """The parameters that one module owns directly, and the called module that reads them (``None``: nobody does).

    Tied parameters count at the first called module that has them, at the others they are left out of ``params``.
    """

    module: str
    params: int
    unit: str | None


def holdings(trace: Trace) -> list[Holding]:
    """One entry for each module that owns parameters, in the order of ``named_modules``; grafts are left out."""
    names: dict[str, list[str]] = defaultdict(list)
    for name, _ in trace.model.named_parameters(remove_duplicate=False):
        owner = _owner(name)
        if not _inside_graft(trace.model, owner):
            names[owner].append(name)
    counted = _counted(trace)
    return [
        Holding(owner, sum(counted.get(name, 0) for name in own), _reader(trace, owner, counted, own))
        for owner, own in names.items()
    ]


def is_scale(module: nn.Module, calls: Iterable[Call]) -> bool:
    """Whether a module only scales and shifts: a norm, or vectors as parameters and an unchanged shape."""
    if isinstance(module, _NORMS):
        return True
    same_shape = all(c.source and c.target and c.source.shape == c.target.shape for c in calls)
    return same_shape and all(parameter.dim() < 2 for parameter in module.parameters())


def _owner(parameter: str) -> str:
    """The module that a parameter belongs to; a parametrisation belongs to what it parametrises."""
    module = parameter.rpartition(".")[0]
    return f".{module}".partition(".parametrizations.")[0].lstrip(".")


def _counted(trace: Trace) -> dict[str, int]:
    """The size of every parameter under the one of its names that it is counted by."""
    names: dict[nn.Parameter, list[str]] = defaultdict(list)
    for name, parameter in trace.model.named_parameters(remove_duplicate=False):
        names[parameter].append(name)
    called = {p: [name for name in own if _owner(name) in trace.by_module] for p, own in names.items()}
    return {(called[p] or own)[0]: p.numel() for p, own in names.items()}


def _reader(trace: Trace, owner: str, counted: dict[str, int], names: list[str]) -> str | None:
    if owner in trace.by_module:
        return owner
    if trace.has_graph and not trace.read.intersection(name for name in names if name in counted):
        return None
    nearest = next((name for name in above(owner) if name in trace.by_module), None)
    if nearest is None or trace.has_graph:
        return nearest
    # Without a graph nobody knows who read them; a module that calls nothing else is the likely one.
    return None if any(nearest in above(name) for name in trace.by_module) else nearest


def _inside_graft(model: nn.Module, name: str) -> bool:
    return any(isinstance(model.get_submodule(holder), Grafts) for holder in (name, *above(name)))
