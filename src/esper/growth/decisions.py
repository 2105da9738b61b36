"""Which decisions the latest event of a run settles, and on what evidence. Pure; does not know who remembers them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from esper.events import (
    AnyEvent,
    Attached,
    Cut,
    Folded,
    Judged,
    Pruned,
    Refused,
    RolledBack,
    Score,
    Scored,
    Sensed,
    Signal,
)
from esper.growth.guard import Guard

Result = Literal["kept", "proved", "refused", "removed"]


@dataclass(frozen=True)
class Decision:
    """One candidate's way to its end.

    ``kind`` is ``graft``, ``cut`` or ``prune``. ``result``: ``kept`` in the model (a cut or a pruning: done);
    ``proved`` its worth, but another one was attached; ``refused``; ``removed`` by the guard. ``tried``: a trial was
    held. ``rank`` is the place of its score, from 0. ``grafts`` and ``refused`` count what came before: attachments of
    the run, and refusals since the latest one.
    """

    candidate: str
    kind: str
    step: int
    result: Result
    reason: str
    judged: Judged | None = None
    score: Score | None = None
    rank: int = 0
    tried: bool = True
    attached: Attached | None = None
    signals: dict[str, Signal] = field(default_factory=dict)
    grafts: int = 0
    refused: int = 0

    @property
    def succeeded(self) -> bool:
        """Whether the change was worth making."""
        return self.result in ("kept", "proved")


def settled(history: Sequence[AnyEvent]) -> Iterator[Decision]:
    """The decisions that are settled by the last event of ``history`` and were not before it.

    An attachment is settled when the guard has stopped watching it.
    """
    *before, last = history
    match last:
        case Refused(candidate=candidate, reason=reason) if candidate:
            yield _graft(before, candidate, last.step, "refused", reason)
        case Judged(kind="cut" | "prune" as kind, accepted=False):
            yield Decision(last.candidate, kind, last.step, "refused", last.reason, last)
        case Cut(site=site):
            judged = _judged(before, f"cut {site}")
            yield Decision(f"cut {site}", "cut", last.step, "kept", judged.reason if judged else "", judged)
        case Pruned(what=what, where=where):
            judged = _latest(before, "prune")
            reason = judged.reason if judged else ""
            yield Decision(f"prune {what} {where}", "prune", last.step, "kept", reason, judged)
        case Attached(candidate=candidate):
            yield from _also_proved(before, last.step, candidate)
        case RolledBack(reason=reason):
            added = next((event for event in reversed(before) if isinstance(event, Attached)), None)
            if added is not None:
                yield _attachment(before, added, "removed", reason)
    for added in _unwatched(before, last):
        judged = _judged(before[: before.index(added)], added.candidate)
        yield _attachment(before, added, "kept", judged.reason if judged else "")


def _also_proved(before: Sequence[AnyEvent], step: int, attached: str) -> Iterator[Decision]:
    """What the judge accepted at the same step as the one that was attached."""
    for event in before:
        if not isinstance(event, Judged) or event.step != step or event.kind != "graft":
            continue
        if event.accepted and event.candidate != attached:
            yield _graft(before, event.candidate, step, "proved", f"{event.reason}; {attached} was better")


def _unwatched(before: Sequence[AnyEvent], last: AnyEvent) -> Iterator[Attached]:
    """Attachments that the guard has stopped watching between the last but one event and the last."""
    for place, added in enumerate(before):
        if isinstance(added, Attached):
            since = before[place + 1 :]
            open_yet = not any(isinstance(event, RolledBack) or _is_past(event, added) for event in since)
            if open_yet and _is_past(last, added):
                yield added


def _is_past(event: AnyEvent, added: Attached) -> bool:
    if isinstance(event, RolledBack):
        return False
    return isinstance(event, Attached | Folded) or event.step >= added.step + Guard.WATCH


def _attachment(history: Sequence[AnyEvent], added: Attached, result: Result, reason: str) -> Decision:
    before = history[: history.index(added)]
    return _graft(before, added.candidate, added.step, result, reason, attached=added)


def _graft(
    before: Sequence[AnyEvent],
    candidate: str,
    step: int,
    result: Result,
    reason: str,
    *,
    attached: Attached | None = None,
) -> Decision:
    """A graft's decision from what was known ``before`` its verdict."""
    start = next((i for i in reversed(range(len(before))) if isinstance(before[i], Scored)), 0)
    scored = before[start] if before else None
    scores = scored.scores if isinstance(scored, Scored) else ()
    names = [score.candidate for score in scores]
    grafts, refused = progress(before[:start])
    return Decision(
        candidate=candidate,
        kind="graft",
        step=step,
        result=result,
        reason=reason,
        judged=_judged(before[start:], candidate),
        score=scores[names.index(candidate)] if candidate in names else None,
        rank=names.index(candidate) if candidate in names else 0,
        tried=isinstance(scored, Scored) and candidate in scored.chosen,
        attached=attached,
        signals=_signals(before),
        grafts=grafts,
        refused=refused,
    )


def _signals(history: Sequence[AnyEvent]) -> dict[str, Signal]:
    """What each site said last, by site."""
    sensed = next((event for event in reversed(history) if isinstance(event, Sensed)), None)
    return {} if sensed is None else {signal.site: signal for signal in sensed.signals}


def progress(history: Sequence[AnyEvent]) -> tuple[int, int]:
    """How many grafts are in the model, and how many trials have been refused since the latest one."""
    grafts = refused = 0
    for event in history:
        match event:
            case Attached():
                grafts, refused = grafts + 1, 0
            case RolledBack():
                grafts, refused = grafts - 1, refused + 1
            case Pruned(what="graft"):
                grafts -= 1
            case Refused():
                refused += 1
    return grafts, refused


def _latest(history: Sequence[AnyEvent], kind: str) -> Judged | None:
    return next((e for e in reversed(history) if isinstance(e, Judged) and e.kind == kind), None)


def _judged(history: Sequence[AnyEvent], candidate: str) -> Judged | None:
    for event in reversed(history):
        if isinstance(event, Judged) and event.candidate == candidate:
            return event
    return None
