"""Contenders train on the real loss, on the side; the judge decides which one, if any, is attached."""

from __future__ import annotations

from collections.abc import Mapping
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

    def step(self) -> Next | None:
        for contender in self._contenders.values():
            contender.step(self.work.closure)
        self._left -= 1
        if self._left == int(LOOK * self.work.setup.pace.trial):
            self._drop_hopeless()
        return None if self._left > 0 and self._contenders else self._judge()

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

    def _judge(self) -> Next:
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
        self.work.attach(best, self._contenders[best])
        return rest(self.work)

    def _verdict(self, candidate: Candidate, contender: Contender, host: Losses) -> Verdict:
        self.work.tally.tests += 1
        growth = self.work.size.growth(Size(candidate.params, candidate.macs))
        return self.work.setup.judge.graft(host, contender.losses(), growth=growth)
