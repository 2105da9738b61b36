"""Melts widening grafts into the model's own layers, in the model and all that moves along. Does not know how."""

from __future__ import annotations

from functools import partial

from torch import nn

from esper.events import Widened
from esper.growth.budget import Size
from esper.growth.joining import enlarge
from esper.growth.training import inner
from esper.growth.work import Work
from esper.surgery.isolation import isolated
from esper.surgery.trace import trace
from esper.surgery.widening import widenable


def enlarge_layers(work: Work) -> None:
    """Melt every widening that can: larger parameters take the places of the old ones in the optimizer.

    Where the units of two widenings meet there are weights now, all zero: they are added to the books, and told.
    """
    training = work.setup.training
    places = widenable(training.model)
    if not places:
        return
    before = _size(work)
    for averaged in map(inner, training.averaged):
        enlarge(averaged, places, None)
    enlarge(training.model, places, training.optimizer)
    after = _size(work)
    work.record.append({"op": "widen", "places": [list(place) for place in places]})
    added = Size(after.params - before.params, after.macs - before.macs)
    work.grow(added)
    work.emit(
        Widened(
            step=work.tally.step,
            layers=tuple(dict.fromkeys(name for name, _ in places)),
            num_grafts=len(places),
            params=added.params,
            total_params=work.tally.params,
            total_macs=work.tally.macs,
        )
    )


def _size(work: Work) -> Size:
    host = work.setup.host
    with isolated(host.model, eval_mode=True):
        seen = trace(host.model, partial(host.glimpse, host.model))
    return Size(_num_params(host.model), seen.macs)


def _num_params(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())
