"""Reads signals from the user's own passes and asks the controller what to try."""

from __future__ import annotations

import warnings
from typing import Any

from esper.events import Sensed
from esper.growth.phases.course import end, refused
from esper.growth.phases.phase import Next, Phase, ToLearn
from esper.growth.readings import Readings
from esper.growth.work import Work
from esper.signals.statistics import Statistics, rows
from esper.surgery.capture import Capture


class Sense(Phase):
    """Reads the signals of every site for a few steps, then asks the controller what to try."""

    name = "sense"
    repeats = False

    def __init__(self, work: Work) -> None:
        super().__init__(work)
        self._statistics = Statistics(work.setup.sites, seed=work.setup.seed)
        training = work.setup.training
        self._readings = Readings(
            training, Capture(training.model, work.setup.sites, pick=lambda _: rows, outputs=True)
        )
        self._left = work.setup.pace.sense
        self._seen = False

    def step(self) -> Next | None:
        pairs = self._readings.take()
        self._seen = self._seen or bool(pairs)
        self._statistics.update(pairs)
        self._left -= 1
        return None if self._left > 0 else self._propose()

    def stop(self) -> None:
        self._readings.stop()

    def state_dict(self) -> dict[str, Any]:
        return {
            "left": self._left,
            "seen": self._seen,
            "scale": self._readings.scale,
            "statistics": self._statistics.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._left, self._seen, self._readings.scale = state["left"], state["seen"], state["scale"]
        self._statistics.load_state_dict(state["statistics"])

    def _propose(self) -> Next:
        self.stop()
        work, ranks = self.work, self.work.setup.training.ranks
        if not any(ranks.gather(self._seen)):
            return _unreached(work)
        self._statistics.pool(ranks.gather(self._statistics.state_dict()))
        signals = self._statistics.read()
        self._statistics.forget()  # before there are candidates
        work.emit(Sensed(step=work.tally.step, signals=signals))
        proposed = list(work.setup.controller.propose(work.view(signals)))
        if not proposed:
            return refused(work, "", "the controller proposed nothing")
        return ToLearn(proposed, signals)


def _unreached(work: Work) -> Next:
    reason = (
        "no gradient has reached any site: train the very model that was given to Grower, call backward() before "
        "step(), and leave its sites unfrozen"
    )
    warnings.warn(f"growth ends: {reason}", stacklevel=5)
    return end(work, reason)
