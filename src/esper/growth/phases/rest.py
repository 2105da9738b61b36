"""The phases in which nothing happens. Nothing of ours is in the model's path."""

from __future__ import annotations

from typing import Any

from esper.growth.phases.course import begin_round
from esper.growth.phases.phase import Next, Phase
from esper.growth.work import Work


class Rest(Phase):
    """Dormant until a given step."""

    name = "rest"
    repeats = False

    def __init__(self, work: Work, until: int) -> None:
        super().__init__(work)
        self.until = until

    def step(self) -> Next | None:
        return None if self.work.tally.step < self.until else begin_round(self.work)

    def state_dict(self) -> dict[str, Any]:
        return {"until": self.until}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.until = state["until"]


class Over(Phase):
    """No more growth."""

    name = "over"
    repeats = False

    def step(self) -> Next | None:
        return None
