"""Now and then after growth, takes out what held-out data show to be of no use."""

from __future__ import annotations

from typing import Any

from esper.growth.phases.phase import Next, Phase, ToEnd
from esper.growth.pruning import can_prune, prune
from esper.growth.work import Work


class Prune(Phase):
    """A few sessions, some steps apart. None begins while the guard may still put back an attachment."""

    name = "prune"
    repeats = False

    def __init__(self, work: Work) -> None:
        super().__init__(work)
        pace = work.setup.pace
        self._left = pace.prunings
        self._due = max(work.tally.step, pace.last or 0) + pace.prune_every

    def step(self) -> Next | None:
        if self.work.tally.step < self._due or self.work.guard.since is not None:
            return None
        prune(self.work)
        self._left -= 1
        self._due = self.work.tally.step + self.work.setup.pace.prune_every
        return None if self._left and can_prune(self.work) else ToEnd()

    def state_dict(self) -> dict[str, Any]:
        return {"left": self._left, "due": self._due}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._left, self._due = state["left"], state["due"]
