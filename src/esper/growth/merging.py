"""Melts linear grafts into the layers beside them, in the model and all that moves along. Does not know how."""

from __future__ import annotations

from esper.events import Merged
from esper.growth.budget import Size
from esper.growth.optimizers import dismiss
from esper.growth.training import inner
from esper.growth.work import Work
from esper.surgery.graft import Graft, grafts_of
from esper.surgery.merge import merge, mergeable


def merge_grafts(work: Work) -> None:
    """Melt every graft that can: the layers' parameters stay the same objects with the same optimizer state."""
    training = work.setup.training
    with training.ranks.whole(training.optimizer):
        places = mergeable(training.model)
        if not places:
            return
        melted = [grafts_of(training.model, name)[number] for name, number in places]
        for averaged in map(inner, training.averaged):
            merge(averaged, places)
        dismiss(training.optimizer, merge(training.model, places))
    work.record.append({"op": "merge", "places": [list(place) for place in places]})
    for graft in melted:
        _tell(work, graft)


def _tell(work: Work, graft: Graft) -> None:
    gone = work.cost(graft.site, graft.recipe)
    work.grow(Size(-gone.params, -gone.macs))
    work.emit(
        Merged(
            step=work.tally.step,
            candidate=f"{graft.site.name} {graft.recipe}",
            params=gone.params,
            total_params=work.tally.params,
            total_macs=work.tally.macs,
        )
    )
