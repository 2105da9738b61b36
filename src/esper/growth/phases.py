"""The parts of a growth round, in the order in which they happen. Each says, step by step, which one comes next.

``Rest → Trim → Sense → Learn → Try → Rest``, and ``Over``. While a phase is not armed nothing of it is in the model.
"""

from __future__ import annotations

import copy
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from esper.controller.candidate import Candidate
from esper.controller.judge import Verdict
from esper.errors import CheckpointError
from esper.events import Cut, Ended, Refused, Score, Scored, Sensed, Signal
from esper.growth.budget import Size
from esper.growth.contender import Contender
from esper.growth.optimizers import dismiss
from esper.growth.record import own_parameters
from esper.growth.training import inner
from esper.growth.work import Work
from esper.signals.shadow import Shadow
from esper.signals.statistics import Statistics
from esper.surgery.capture import Capture, Pair
from esper.surgery.graft import Graft, all_grafts, cut, grafts_of, is_cut
from esper.surgery.random_streams import streams_kept

LOOK = 0.5
HALVE = 1 / 3
UNFITTED = 0.1


class Phase(ABC):
    """One part of a round. ``step`` is called after every optimizer step and returns the phase that is next."""

    name: str

    def __init__(self, work: Work) -> None:
        self.work = work

    @abstractmethod
    def step(self) -> Phase:
        """Do what is due after an optimizer step; return the phase of the next step, often this one."""

    def stop(self) -> None:  # noqa: B027 - most phases have nothing in the model's path
        """Take everything out of the model's path."""

    def state_dict(self) -> dict[str, Any]:
        """What is needed to continue; plain data and tensors."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:  # noqa: B027 - most states are what they were built from
        """Continue from :meth:`state_dict`."""


class Rest(Phase):
    """Dormant until a given step."""

    name = "rest"

    def __init__(self, work: Work, until: int) -> None:
        super().__init__(work)
        self.until = until

    def step(self) -> Phase:
        return self if self.work.tally.step < self.until else begin_round(self.work)

    def state_dict(self) -> dict[str, Any]:
        return {"until": self.until}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.until = state["until"]


class Over(Phase):
    """No more growth."""

    name = "over"

    def step(self) -> Phase:
        return self


class Sense(Phase):
    """Reads the signals of every site for a few steps, then asks the controller what to try."""

    name = "sense"

    def __init__(self, work: Work) -> None:
        super().__init__(work)
        self._statistics = Statistics(work.setup.sites, seed=work.setup.seed)
        self._capture = Capture(work.setup.host.model, work.setup.sites)
        self._capture.arm()
        self._left = work.setup.pace.sense
        self._seen = False

    def step(self) -> Phase:
        pairs = self._capture.take()
        self._seen = self._seen or bool(pairs)
        self._statistics.update(pairs)
        self._left -= 1
        return self if self._left > 0 else self._propose()

    def stop(self) -> None:
        self._capture.disarm()

    def state_dict(self) -> dict[str, Any]:
        return {"left": self._left, "seen": self._seen, "statistics": self._statistics.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._left, self._seen = state["left"], state["seen"]
        self._statistics.load_state_dict(state["statistics"])

    def _propose(self) -> Phase:
        self.stop()
        work = self.work
        if not self._seen:
            return _unreached(work)
        signals = self._statistics.read()
        work.emit(Sensed(step=work.tally.step, signals=signals))
        proposed = list(work.setup.controller.propose(work.view(signals)))
        return (
            Learn(work, proposed, signals)
            if proposed
            else refused(work, "", "the controller proposed nothing")
        )


class Learn(Phase):
    """Candidates learn in the shadow; those that explain the held-out gradient best go to trial."""

    name = "learn"

    def __init__(self, work: Work, candidates: Iterable[Candidate], signals: Sequence[Signal]) -> None:
        super().__init__(work)
        self._signals = tuple(signals)
        self._candidates = {c.name: c for c in candidates}
        device = next(work.setup.host.model.parameters()).device
        bodies = {name: (c.site, work.birth(c).body.to(device)) for name, c in self._candidates.items()}
        self._shadow = Shadow(bodies)
        self._capture = self._watch()
        self._left = work.setup.pace.shadow
        self._unfitted: dict[str, list[Pair]] = {}

    def step(self) -> Phase:
        pairs, pace = self._capture.take(), self.work.setup.pace
        self._left -= 1
        if self.work.setup.host.differentiable or self._left >= UNFITTED * pace.shadow:
            with streams_kept():
                self._shadow.update(pairs)
        else:
            self._keep_unfitted(pairs)
        if self._left == int((1 - HALVE) * pace.shadow) and len(self._candidates) > 1:
            self._halve(pairs)
        return self if self._left > 0 else self._choose()

    def stop(self) -> None:
        self._capture.disarm()

    def state_dict(self) -> dict[str, Any]:
        return {
            "left": self._left,
            "candidates": list(self._candidates),
            "signals": msgspec.to_builtins(self._signals),
            "shadow": self._shadow.state_dict(),
            "unfitted": {site: [list(pair) for pair in pairs] for site, pairs in self._unfitted.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._left = state["left"]
        self._shadow.load_state_dict(state["shadow"])
        self._unfitted = {site: [Pair(*pair) for pair in pairs] for site, pairs in state["unfitted"].items()}

    def _watch(self) -> Capture:
        sites = {c.site.name: c.site for c in self._candidates.values()}
        capture = Capture(self.work.setup.host.model, sites.values())
        capture.arm()
        return capture

    def _keep_unfitted(self, pairs: Mapping[str, Sequence[Pair]]) -> None:
        for site, new in pairs.items():
            self._unfitted.setdefault(site, []).extend(new)

    def _halve(self, latest: Mapping[str, Sequence[Pair]]) -> None:
        names = set(self.work.setup.controller.halve(self._scores(latest)))
        self._shadow.keep(names)
        self._candidates = {name: c for name, c in self._candidates.items() if name in names}
        self._capture.disarm()
        self._capture = self._watch()

    def _scores(self, otherwise: Mapping[str, Sequence[Pair]]) -> list[Score]:
        """Best first; on held-out pairs, or on ``otherwise`` where ``evaluate`` gives no gradients."""
        host = self.work.setup.host
        pairs = host.pairs(self._capture.sites) if host.differentiable else otherwise
        with streams_kept():
            worths = self._shadow.worth(pairs)
        scores = [
            Score(
                candidate=name,
                site=self._candidates[name].site.name,
                gain=worth.gain,
                r2=worth.r2,
                score=worth.score,
                params=self._candidates[name].params,
                macs=self._candidates[name].macs,
                held_out=host.differentiable,
            )
            for name, worth in worths.items()
        ]
        return sorted(scores, key=lambda s: (-s.score, s.candidate))

    def _choose(self) -> Phase:
        work = self.work
        scores = self._scores(self._unfitted)
        self.stop()
        chosen = list(work.setup.controller.choose(scores))
        work.emit(Scored(step=work.tally.step, scores=tuple(scores), chosen=tuple(chosen)))
        if not chosen:
            best = scores[0].candidate if scores else ""
            return refused(work, best, "no candidate explains any of the held-out gradient")
        trained = {self._candidates[name]: self._shadow.bodies[name][1] for name in chosen}
        return try_out(
            work, {candidate: work.start_of(candidate, body) for candidate, body in trained.items()}
        )


class Try(Phase):
    """Contenders train on the real loss behind the host; the judge compares; the best accepted one is attached."""

    name = "try"

    def __init__(self, work: Work, contenders: Mapping[Candidate, Contender]) -> None:
        super().__init__(work)
        self._contenders = dict(contenders)
        self._left = work.setup.pace.trial

    def step(self) -> Phase:
        for contender in self._contenders.values():
            contender.step(self.work.closure)
        self._left -= 1
        if self._left == int(LOOK * self.work.setup.pace.trial):
            self._drop_hopeless()
        return self if self._left > 0 and self._contenders else self._judge()

    def state_dict(self) -> dict[str, Any]:
        contenders = {c.name: contender.state_dict() for c, contender in self._contenders.items()}
        return {"left": self._left, "contenders": contenders}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._left = state["left"]
        for candidate, contender in self._contenders.items():
            contender.load_state_dict(state["contenders"][candidate.name])

    def _drop_hopeless(self) -> None:
        self._drop_failed()
        host = self.work.setup.host.losses()
        for candidate, contender in list(self._contenders.items()):
            if self.work.setup.judge.hopeless(host, contender.losses()):
                del self._contenders[candidate]
                note_refusal(self.work, candidate.name, "no gain on held-out data at half-time")

    def _drop_failed(self) -> None:
        for candidate, contender in list(self._contenders.items()):
            if contender.failed:
                del self._contenders[candidate]
                note_refusal(self.work, candidate.name, contender.failed)

    def _judge(self) -> Phase:
        self._drop_failed()
        host = self.work.setup.host.losses()
        verdicts = {c: self._verdict(c, contender, host) for c, contender in self._contenders.items()}
        accepted = [c for c, verdict in verdicts.items() if verdict.accepted]
        for candidate, verdict in verdicts.items():
            self.work.judged(candidate.name, "graft", verdict)
            if not verdict.accepted:
                note_refusal(self.work, candidate.name, verdict.reason)
        if not accepted:
            return after_refusal(self.work)
        best = max(accepted, key=lambda c: verdicts[c].lower - verdicts[c].price)
        return grown(self.work, best, self._contenders[best])

    def _verdict(self, candidate: Candidate, contender: Contender, host: Any) -> Verdict:
        self.work.tally.tests += 1
        growth = self.work.size.growth(Size(candidate.params, candidate.macs))
        return self.work.setup.judge.graft(host, contender.losses(), growth=growth)


class Trim(Phase):
    """Asks whether a site's own path is still needed: a copy of its grafts trains in its place."""

    name = "trim"

    def __init__(self, work: Work, exit_name: str) -> None:
        super().__init__(work)
        self._exit = exit_name
        self._left = work.setup.pace.trial
        copies = [copy.deepcopy(graft) for graft in grafts_of(work.setup.host.model, exit_name)]
        self._contender = work.contender(f"cut {exit_name}", copies, exclusive=True)

    def step(self) -> Phase:
        self._contender.step(self.work.closure)
        self._left -= 1
        return self if self._left > 0 and not self._contender.failed else self._judge()

    def state_dict(self) -> dict[str, Any]:
        return {"exit": self._exit, "left": self._left, "contender": self._contender.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._left = state["left"]
        self._contender.load_state_dict(state["contender"])

    def _judge(self) -> Phase:
        work = self.work
        if not self._contender.failed:
            verdict = work.setup.judge.cut(work.setup.host.losses(), self._contender.losses())
            work.judged(self._contender.name, "cut", verdict)
            if verdict.accepted:
                self._cut()
                work.tally.refused_rounds = 0
                return Rest(work, work.tally.step + work.setup.pace.rest)
        work.tally.cuts[self._exit] = work.tally.cuts.get(self._exit, 0) + 1
        return begin_growth(work)

    def _cut(self) -> None:
        work, optimizer = self.work, self.work.setup.training.optimizer
        model = work.setup.host.model
        live = [p for graft in grafts_of(model, self._exit) for p in graft.parameters()]
        trained = [p for graft in self._contender.grafts for p in graft.parameters()]
        for parameter, other in zip(live, trained, strict=True):
            parameter.data.copy_(other.data)
            optimizer.state[parameter] = self._contender.optimizer.state[other]
        before = work.setup.host.unused()
        for module in (model, *map(inner, work.setup.training.averaged)):
            cut(module, self._exit)
        work.guard.dismiss()
        own = [name for name, _ in own_parameters(model, self._exit)]
        dead = sorted({*own, *work.setup.host.unused()} - before)
        dismiss(optimizer, map(model.get_parameter, dead))
        gone = sum(model.get_parameter(name).numel() for name in dead)
        work.record.append({"op": "cut", "exit": self._exit, "dead": dead})
        work.grow(Size(-gone, 0))
        work.emit(
            Cut(
                step=work.tally.step,
                site=self._exit,
                params=gone,
                total_params=work.tally.params,
                total_macs=work.tally.macs,
            )
        )


def resume(work: Work, state: Mapping[str, Any]) -> Phase:
    """The phase that :meth:`Phase.state_dict` was taken of; ``work`` must be as it was then."""
    candidates = {c.name: c for c in work.view(()).candidates}
    phase: Phase
    match state["name"]:
        case Rest.name:
            phase = Rest(work, 0)
        case Over.name:
            phase = Over(work)
        case Sense.name:
            phase = Sense(work)
        case Learn.name:
            signals = msgspec.convert(state["signals"], tuple[Signal, ...])
            phase = Learn(work, [candidates[name] for name in state["candidates"]], signals)
        case Try.name:
            chosen = [candidates[name] for name in state["contenders"]]
            phase = Try(work, {c: work.contender(c.name, [work.birth(c)]) for c in chosen})
        case Trim.name:
            phase = Trim(work, state["exit"])
        case other:
            raise CheckpointError(
                f"unknown phase of growth {other!r}: the checkpoint is of a newer version of esper"
            )
    phase.load_state_dict(dict(state))
    return phase


def _unreached(work: Work) -> Phase:
    reason = (
        "no gradient has reached any site: train the very model that was given to Grower, call backward() before "
        "step(), and leave its sites unfrozen"
    )
    warnings.warn(f"growth ends: {reason}", stacklevel=5)
    return over(work, reason)


def begin_round(work: Work) -> Phase:
    """The first phase of a new round, or the end of growth."""
    if work.too_late():
        return over(work, "a new graft could no longer be tried before growth closes")
    if work.tally.tests >= work.setup.judge.tests:
        return over(work, f"all {work.setup.judge.tests} judgements of the run are used up")
    exit_name = next_cut(work)
    return begin_growth(work) if exit_name is None else Trim(work, exit_name)


def begin_growth(work: Work) -> Phase:
    """Look for the next graft; where none may be added, wait for the next cut, or end."""
    if work.view(()).candidates:
        return Sense(work)
    reason = "every candidate would exceed the budget"
    return over(work, reason) if next_cut(work) is None else after_refusal(work)


def next_cut(work: Work) -> str | None:
    """The grown module whose own path may be unneeded by now, the one least often refused; ``None``: there is none."""
    exits = dict.fromkeys(graft.site.exit for _, graft in all_grafts(work.setup.host.model))
    can = [name for name in exits if _can_be_cut(work, name)]
    return min(can, key=lambda name: work.tally.cuts.get(name, 0), default=None)


def try_out(work: Work, grafts: Mapping[Candidate, Graft]) -> Phase:
    """Trials of newborn grafts; those that the optimizer cannot train are refused before they begin."""
    contenders = {}
    for candidate, graft in grafts.items():
        contender = work.contender(candidate.name, [graft])
        reason = work.unacceptable(graft)
        if reason is None:
            contenders[candidate] = contender
        else:
            note_refusal(work, candidate.name, reason)
    return Try(work, contenders) if contenders else after_refusal(work)


def grown(work: Work, candidate: Candidate, contender: Contender) -> Phase:
    """Attach the winner."""
    work.attach(candidate, contender)
    work.tally.refused_rounds = 0
    return Rest(work, work.tally.step + work.setup.pace.rest)


def note_refusal(work: Work, candidate: str, reason: str) -> None:
    """Count and tell a refusal of one candidate."""
    work.tally.refusals[candidate] = work.tally.refusals.get(candidate, 0) + 1
    work.emit(Refused(step=work.tally.step, candidate=candidate, reason=reason))


def refused(work: Work, candidate: str, reason: str) -> Phase:
    """A round that ends before any trial."""
    work.emit(Refused(step=work.tally.step, candidate=candidate, reason=reason))
    return after_refusal(work)


def after_refusal(work: Work) -> Phase:
    """A longer rest, or the end of growth."""
    work.tally.refused_rounds += 1
    rest = work.setup.controller.rest(work.tally.refused_rounds)
    if rest is None:
        return over(work, f"{work.tally.refused_rounds} refused rounds in a row: nothing more to gain here")
    return Rest(work, work.tally.step + rest)


def over(work: Work, reason: str) -> Phase:
    """The end of growth."""
    work.emit(Ended(step=work.tally.step, reason=reason))
    return Over(work)


def _can_be_cut(work: Work, name: str) -> bool:
    model = work.setup.host.model
    if is_cut(model, name) or any(graft.site.attachment == "after" for graft in grafts_of(model, name)):
        return False
    own = list(model.get_submodule(name).parameters(recurse=False))
    return bool(own) and len(own_parameters(model, name)) == len(own)
