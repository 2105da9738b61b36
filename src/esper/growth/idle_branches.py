"""Takes out residual branches that the living model does as well without. Knows no phase, and not when."""

from __future__ import annotations

from esper.controller.judge import Verdict
from esper.growth.budget import Size
from esper.growth.host import Losses
from esper.growth.optimizers import dismiss
from esper.growth.telling import stake_of, tell
from esper.growth.training import inner
from esper.growth.work import Work
from esper.surgery.bypass import Form, bypass, bypassed, can_bypass


def can_prune_branches(work: Work) -> bool:
    """Whether there are residual branches that may be pruned in this run."""
    return work.setup.prune == "all" and bool(_branches(work))


def prune_branches(work: Work, reference: Losses) -> None:
    """Take out the modules that add to a residual stream what the model does as well without; the identity stays.

    One after another, those that are missed least first: each is judged with those before it gone.
    """
    names = _branches(work)
    verdicts = [(name, _without(work, name, reference, looks=len(names))) for name in names]
    for name, verdict in sorted(verdicts, key=lambda pair: -pair[1].lower):
        if verdict.accepted:
            verdict = _without(work, name, reference, looks=len(names))
        work.judged(f"prune branch {name}", "prune", verdict)
        if verdict.accepted:
            _leave_out(work, name, verdict)


def _branches(work: Work) -> list[str]:
    """Modules that are still there, called with one tensor for one tensor, and free of grafts and hooks."""
    host = work.setup.host
    gone = {op["module"] for op in work.record if op["op"] == "bypass"}
    found = []
    for name in work.setup.parts.streams:
        if name in gone or not can_bypass(host.model, name):
            continue
        form = Form()
        with form.watching(host.model, name):
            host.glimpse(host.model)
        found += [name] if form.simple else []
    return found


def _without(work: Work, name: str, reference: Losses, *, looks: int) -> Verdict:
    with bypassed(work.setup.host.model, name):
        losses = work.setup.host.losses()
    return work.setup.judge.prune(reference, losses, stake=stake_of(work), looks=looks)


def _leave_out(work: Work, name: str, verdict: Verdict) -> None:
    training, host = work.setup.training, work.setup.host
    before = host.macs()
    for averaged in map(inner, training.averaged):
        bypass(averaged, name)
    gone = bypass(training.model, name)
    dismiss(training.optimizer, gone)
    work.record.append({"op": "bypass", "module": name})
    params = sum(parameter.numel() for parameter in gone)
    work.grow(Size(-params, host.macs() - before))
    tell(work, "branch", name, params, verdict)
