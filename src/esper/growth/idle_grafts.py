"""Takes out grafts that the living model does as well without. Knows no phase, and not when."""

from __future__ import annotations

from esper.controller.judge import Verdict
from esper.growth.budget import Size
from esper.growth.host import Losses
from esper.growth.optimizers import dismiss
from esper.growth.record import drop_graft
from esper.growth.telling import stake_of, tell
from esper.growth.training import inner
from esper.growth.work import Work
from esper.surgery.graft import Graft, all_grafts, grafts_of, is_cut, switched_off


def can_prune_grafts(work: Work) -> bool:
    """Whether there are grafts that may be pruned in this run."""
    return work.setup.prune != "nothing" and bool(_dispensable(work))


def prune_grafts(work: Work, reference: Losses) -> None:
    """Detach the grafts without which the model is as good as ``reference``, its losses before this session.

    One after another, those that are missed least first: each is judged with those before it gone.
    """
    grafts = _dispensable(work)
    verdicts = [(graft, _without(work, graft, reference, looks=len(grafts))) for graft in grafts]
    for graft, verdict in sorted(verdicts, key=lambda pair: -pair[1].lower):
        if verdict.accepted and graft in _dispensable(work):
            verdict = _without(work, graft, reference, looks=len(grafts))
        name = f"{graft.site.name} {graft.recipe}"
        work.judged(f"prune {name}", "prune", verdict)
        if verdict.accepted and graft in _dispensable(work):
            _detach(work, graft, verdict)


def _dispensable(work: Work) -> list[Graft]:
    """The grafts whose exits would have an output without them."""
    model = work.setup.host.model
    return [
        graft
        for _, graft in all_grafts(model)
        if not is_cut(model, graft.site.exit) or len(grafts_of(model, graft.site.exit)) > 1
    ]


def _without(work: Work, graft: Graft, reference: Losses, *, looks: int) -> Verdict:
    with switched_off(graft):
        losses = work.setup.host.losses()
    return work.setup.judge.prune(reference, losses, stake=stake_of(work), looks=looks)


def _detach(work: Work, graft: Graft, verdict: Verdict) -> None:
    training, exit_name = work.setup.training, graft.site.exit
    number = next(i for i, other in enumerate(grafts_of(training.model, exit_name)) if other is graft)
    for averaged in map(inner, training.averaged):
        drop_graft(averaged, exit_name, number)
    gone = drop_graft(training.model, exit_name, number)
    dismiss(training.optimizer, gone)
    work.record.append({"op": "detach", "exit": exit_name, "number": number})
    size = work.cost(graft.site, graft.recipe)
    work.grow(Size(-size.params, -size.macs))
    tell(work, "graft", f"{graft.site.name} {graft.recipe}", size.params, verdict)
