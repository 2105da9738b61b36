"""Asks whether a grown site still needs its own path, and takes it out where it does not."""

from __future__ import annotations

from typing import Any

from esper.events import Cut
from esper.growth.budget import Size
from esper.growth.optimizers import dismiss
from esper.growth.phases.course import begin_growth, rest
from esper.growth.phases.phase import Next, Phase
from esper.growth.record import own_parameters
from esper.growth.training import inner
from esper.growth.work import Work
from esper.surgery.graft import cut, grafts_of


class Trim(Phase):
    """Asks whether a site's own path is still needed: a copy of its grafts trains in its place."""

    name = "trim"

    def __init__(self, work: Work, exit_name: str) -> None:
        super().__init__(work)
        self._exit = exit_name
        self._left = work.setup.pace.trial
        copied = work.setup.training.ranks.copied
        copies = [copied(graft) for graft in grafts_of(work.setup.host.model, exit_name)]
        self._contender = work.contender(f"cut {exit_name}", copies, exclusive=True)

    def step(self) -> Next | None:
        self._contender.step(self.work.closure)
        self._left -= 1
        return None if self._left > 0 and not self._contender.failed else self._judge()

    def state_dict(self) -> dict[str, Any]:
        return {"exit": self._exit, "left": self._left, "contender": self._contender.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._left = state["left"]
        self._contender.load_state_dict(state["contender"])

    def _judge(self) -> Next:
        work, accepted = self.work, False
        if not self._contender.failed:
            verdict = work.setup.judge.cut(work.setup.host.losses(), self._contender.losses())
            work.judged(self._contender.name, "cut", verdict)
            accepted = verdict.accepted
        if accepted:
            self._cut()
        self._contender.dismiss()
        if accepted:
            return rest(work)
        work.tally.cuts[self._exit] = work.tally.cuts.get(self._exit, 0) + 1
        return begin_growth(work)

    def _cut(self) -> None:
        work, host = self.work, self.work.setup.host
        before, idle = host.unused(), host.idle_macs()
        self._take_trained_weights()
        for module in (host.model, *map(inner, work.setup.training.averaged)):
            cut(module, self._exit)
        own = [name for name, _ in own_parameters(host.model, self._exit)]
        self._drop(sorted({*own, *host.unused()} - before), host.idle_macs() - idle)

    def _take_trained_weights(self) -> None:
        training = self.work.setup.training
        grafts = grafts_of(self.work.setup.host.model, self._exit)
        for averaged in map(inner, training.averaged):
            for twin, trained in zip(grafts_of(averaged, self._exit), self._contender.grafts, strict=True):
                twin.load_state_dict(trained.state_dict())
        for graft, trained in zip(grafts, self._contender.grafts, strict=True):
            training.ranks.refill(graft, trained)
            for parameter, other in zip(graft.parameters(), trained.parameters(), strict=True):
                state = self._contender.optimizer.state[other]
                training.optimizer.state[parameter] = training.ranks.share_of(state, parameter)

    def _drop(self, dead: list[str], macs: int) -> None:
        """Parameters that nothing depends on any more leave the optimizer, and the books with their multiply-adds."""
        work, parameters = self.work, [self.work.setup.host.model.get_parameter(name) for name in dead]
        dismiss(work.setup.training.optimizer, parameters)
        for parameter in parameters:
            parameter.grad = None  # nothing would clear it any more, and clipping by norm would count it
        gone = sum(p.numel() for p in parameters)
        work.record.append({"op": "cut", "exit": self._exit, "dead": dead})
        work.grow(Size(-gone, -macs))
        work.emit(
            Cut(
                step=work.tally.step,
                site=self._exit,
                params=gone,
                total_params=work.tally.params,
                total_macs=work.tally.macs,
            )
        )
