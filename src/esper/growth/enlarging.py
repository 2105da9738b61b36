"""Melts widening grafts into the layers of the model, and of all that moves along. Knows neither how nor when."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from torch import nn

from esper.events import Widened
from esper.growth.budget import Size
from esper.growth.examination import explore_again
from esper.growth.joining import enlarge
from esper.growth.training import inner
from esper.growth.work import Work
from esper.surgery.graft import all_grafts
from esper.surgery.isolation import isolated
from esper.surgery.site import Site
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
    with training.ranks.whole(training.optimizer):
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


def can_join(work: Work) -> bool:
    """Whether this run joins widenings between rounds, and every graft that there is would become a part of a layer."""
    if work.setup.join != "rounds":
        return False
    model = work.setup.host.model
    return 0 < len(widenable(model)) == len(all_grafts(model))


def look_again(work: Work) -> None:
    """Find the sites of the network as it has become, free of grafts; refusals at those that changed are forgotten."""
    found = explore_again(work.setup.host)
    chosen = found if work.setup.only is None else found.select(work.setup.only)
    before = {site.name: _widths(site) for site in work.setup.sites}
    changed = [site.name for site in chosen.sites if _widths(site) != before.get(site.name)]
    work.setup = replace(
        work.setup, sites=chosen.sites, runs=found.runs, droppable=found.droppable, parts=found.parts
    )
    refusals = work.tally.refusals
    work.tally.refusals = {name: n for name, n in refusals.items() if name.split(" ")[0] not in changed}
    work.sites = found


def _widths(site: Site) -> tuple[object, ...]:
    return site.source.width, site.target.width, site.block


def _size(work: Work) -> Size:
    host = work.setup.host
    with isolated(host.model, eval_mode=True):
        seen = trace(host.model, partial(host.glimpse, host.model))
    return Size(_num_params(host.model), seen.macs)


def _num_params(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())
