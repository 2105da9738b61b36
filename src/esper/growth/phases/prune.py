"""Now and then after growth, takes out what held-out data show to be of no use."""

from __future__ import annotations

from typing import Any

from esper.growth.idle_units import blocks_of
from esper.growth.phases.phase import Next, Phase, ToEnd
from esper.growth.pruning import can_prune, prune
from esper.growth.work import Work
from esper.signals.redundancy import Moments

SURVEY = 30
"""Steps before a session on which the batch just trained on is read; held-out rows are for the judge alone."""


class Prune(Phase):
    """A few sessions, some steps apart. None begins while the guard may still put back an attachment."""

    name = "prune"

    def __init__(self, work: Work) -> None:
        super().__init__(work)
        pace = work.setup.pace
        self._due = max(work.tally.step, pace.last or 0) + pace.prune_every
        self._moments: Moments | None = None
        self.repeats = self._surveys(self.work.tally.step + 1)

    def step(self) -> Next | None:
        if self.work.guard.since is not None:
            lead = SURVEY if self.work.setup.prune == "all" else 1
            self._due = max(self._due, self.work.tally.step + lead)
            return None
        step = self.work.tally.step
        if self._surveys(step):
            self._survey()
        following = None if step < self._due else self._session()
        self.repeats = self._surveys(step + 1)
        return following

    def state_dict(self) -> dict[str, Any]:
        sums = None if self._moments is None else list(self._moments.sums.values())
        return {"due": self._due, "moments": sums}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._due = state["due"]
        self.repeats = self._surveys(self.work.tally.step + 1)
        if state["moments"] is not None:
            self._moments = self._fresh()
            for block, sums in zip(self._moments.sums, state["moments"], strict=True):
                self._moments.sums[block] = sums.clone()

    def _surveys(self, step: int) -> bool:
        return self.work.setup.prune == "all" and step > self._due - SURVEY

    def _fresh(self) -> Moments:
        return Moments(self.work.setup.host.model, blocks_of(self.work))

    def _survey(self) -> None:
        self._moments = self._moments or self._fresh()
        self.work.setup.host.listen(self.work.closure, self._moments.watching())

    def _session(self) -> Next | None:
        prune(self.work, self._moments or self._fresh())
        self._moments = None
        self._due = self.work.tally.step + self.work.setup.pace.prune_every
        return None if can_prune(self.work) else ToEnd()
