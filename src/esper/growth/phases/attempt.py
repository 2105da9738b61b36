"""Contenders train on the real loss, on the side; the judge decides which one, if any, is attached."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from esper.controller.candidate import Candidate
from esper.controller.judge import Verdict
from esper.growth.budget import Size
from esper.growth.contender import Contender
from esper.growth.host import Losses
from esper.growth.phases.course import after_refusal, note_refusal, rest
from esper.growth.phases.phase import Next, Phase
from esper.growth.work import Work

LOOK = 0.5


class Try(Phase):
    """Contenders train on the real loss behind the host; the judge compares; the best accepted one is attached."""

    name = "try"

    def __init__(self, work: Work, contenders: Mapping[Candidate, Contender]) -> None:
        super().__init__(work)
        self._contenders = dict(contenders)
        self._left = work.setup.pace.trial
        self._loss_before = math.nan

    def step(self) -> Next | None:
        if math.isnan(self._loss_before):
            self._loss_before = float(self.work.setup.host.losses().mean())
        for contender in self._contenders.values():
            contender.step(self.work.closure)
        self._left -= 1
        if self._left == int(LOOK * self.work.setup.pace.trial):
            self._drop_hopeless()
        return None if self._left > 0 and self._contenders else self._judge()

    def state_dict(self) -> dict[str, Any]:
        contenders = {c.name: contender.state_dict() for c, contender in self._contenders.items()}
        return {"left": self._left, "loss_before": self._loss_before, "contenders": contenders}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._left, self._loss_before = state["left"], state["loss_before"]
        for candidate, contender in self._contenders.items():
            contender.load_state_dict(state["contenders"][candidate.name])

    def _drop_hopeless(self) -> None:
        self._drop_failed()
        host = self.work.setup.host.losses()
        for candidate, contender in list(self._contenders.items()):
            if self.work.setup.judge.hopeless(host, contender.losses()):
                self._refuse(candidate, "no gain on held-out data at half-time")

    def _drop_failed(self) -> None:
        for candidate, contender in list(self._contenders.items()):
            if contender.failed:
                self._refuse(candidate, contender.failed)

    def _judge(self) -> Next | None:
        self._drop_failed()
        host = self.work.setup.host.losses()
        verdicts = {c: self._verdict(c, contender, host) for c, contender in self._contenders.items()}
        for candidate, verdict in verdicts.items():
            self.work.judged(candidate.name, "graft", verdict)
        accepted = [c for c, verdict in verdicts.items() if verdict.accepted]
        if accepted:
            self._refuse_all(verdicts, [c for c in verdicts if c not in accepted])
            best = max(accepted, key=lambda c: verdicts[c].lower - verdicts[c].price)
            self.work.attach(best, self._contenders.pop(best))
            for contender in self._contenders.values():
                contender.dismiss()
            return rest(self.work)
        return self._look_again(verdicts, host)

    def _look_again(self, verdicts: Mapping[Candidate, Verdict], host: Losses) -> Next | None:
        """Another trial for what may be a gain of speed alone, where there is time for one; the others are refused."""
        trial = self.work.setup.pace.trial
        tests = self.work.setup.judge.tests - self.work.tally.tests if self.work.has_time(trial) else 0
        unsettled = [c for c, verdict in verdicts.items() if verdict.unsettled][:tests]
        self._refuse_all(verdicts, [c for c in verdicts if c not in unsettled])
        self._left, self._loss_before = trial, float(host.mean())
        return None if self._contenders else after_refusal(self.work)

    def _refuse_all(self, verdicts: Mapping[Candidate, Verdict], refused: Iterable[Candidate]) -> None:
        for candidate in refused:
            self._refuse(candidate, verdicts[candidate].reason)

    def _refuse(self, candidate: Candidate, reason: str) -> None:
        self._contenders.pop(candidate).dismiss()
        note_refusal(self.work, candidate.name, reason)

    def _verdict(self, candidate: Candidate, contender: Contender, host: Losses) -> Verdict:
        self.work.tally.tests += 1
        growth = self.work.size.growth(Size(candidate.params, candidate.macs))
        progress = self._loss_before - float(host.mean())
        return self.work.setup.judge.graft(host, contender.losses(), growth=growth, progress=progress)
