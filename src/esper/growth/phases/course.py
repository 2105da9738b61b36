"""What follows what in a round, and when growth ends. Knows no phase from inside."""

from __future__ import annotations

from collections.abc import Mapping

from esper.controller.candidate import Candidate
from esper.events import Ended, Refused
from esper.growth.enlarging import can_join, enlarge_layers, look_again
from esper.growth.phases.phase import Next, ToEnd, ToPrune, ToRest, ToSense, ToTrim, ToTry
from esper.growth.pruning import can_prune
from esper.growth.record import own_parameters
from esper.growth.work import Work
from esper.surgery.fold import can_drop
from esper.surgery.graft import Graft, all_grafts, grafts_of, is_cut


def begin_round(work: Work) -> Next:
    """The first phase of a new round, or the end of growth; widenings are joined before it where the run asks for it.

    While the guard watches it may want to take the latest out again, so they wait for its end.
    """
    if can_join(work):
        since = work.guard.since
        if since is not None:
            return ToRest(since + work.guard.WATCH)
        enlarge_layers(work)
        look_again(work)
    exit_name = next_cut(work)
    if exit_name is not None and work.has_time(work.setup.pace.trial):
        return ToTrim(exit_name)
    return begin_growth(work)


def begin_growth(work: Work) -> Next:
    """Look for the next graft; where none may be added, wait for the next cut, or end."""
    if not work.has_time(work.setup.pace.round):
        return end(work, "a new graft could no longer be tried before growth closes")
    if work.tally.tests >= work.setup.judge.tests:
        return end(work, f"all {work.setup.judge.tests} judgements of the run are used up")
    if work.view(()).candidates:
        return ToSense()
    reason = "every candidate would exceed the budget"
    return end(work, reason) if next_cut(work) is None else after_refusal(work)


def next_cut(work: Work) -> str | None:
    """The grown module whose own path may be unneeded by now, the one least often refused; ``None``: there is none."""
    exits = dict.fromkeys(graft.site.exit for _, graft in all_grafts(work.setup.host.model))
    can = [name for name in exits if _can_be_cut(work, name)]
    return min(can, key=lambda name: work.tally.cuts.get(name, 0), default=None)


def try_out(work: Work, grafts: Mapping[Candidate, Graft]) -> Next:
    """Trials of newborn grafts, as many as there are judgements left; the optimizer refuses those it cannot train."""
    contenders = {}
    for candidate, graft in list(grafts.items())[: work.setup.judge.tests - work.tally.tests]:
        contender = work.contender(candidate.name, [graft])
        reason = work.unacceptable(graft)
        if reason is None:
            contenders[candidate] = contender
        else:
            note_refusal(work, candidate.name, reason)
    return ToTry(contenders) if contenders else after_refusal(work)


def rest(work: Work) -> Next:
    """The usual rest after something has been gained."""
    work.tally.refused_rounds = 0
    return ToRest(work.tally.step + work.setup.pace.rest)


def note_refusal(work: Work, candidate: str, reason: str) -> None:
    """Count and tell a refusal of one candidate."""
    work.tally.refusals[candidate] = work.tally.refusals.get(candidate, 0) + 1
    work.emit(Refused(step=work.tally.step, candidate=candidate, reason=reason))


def refused(work: Work, candidate: str, reason: str) -> Next:
    """A round that ends before any trial."""
    work.emit(Refused(step=work.tally.step, candidate=candidate, reason=reason))
    return after_refusal(work)


def after_refusal(work: Work) -> Next:
    """A longer rest, or the end of growth."""
    work.tally.refused_rounds += 1
    rests = work.setup.controller.rest(work.tally.refused_rounds)
    if rests is None:
        return end(work, f"{work.tally.refused_rounds} refused rounds in a row: nothing more to gain here")
    return ToRest(work.tally.step + rests * work.setup.pace.rest)


def end(work: Work, reason: str) -> Next:
    """The end of growth; what it left is pruned where there is anything to prune."""
    work.emit(Ended(step=work.tally.step, reason=reason))
    return ToPrune() if can_prune(work) else ToEnd()


def _can_be_cut(work: Work, name: str) -> bool:
    model = work.setup.host.model
    if is_cut(model, name) or any(graft.site.attachment == "after" for graft in grafts_of(model, name)):
        return False
    if name not in work.setup.droppable or not can_drop(model, name):
        return False
    own = list(model.get_submodule(name).parameters(recurse=False))
    return bool(own) and len(own_parameters(model, name)) == len(own)
