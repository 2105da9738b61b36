"""Candidates learn in the shadow of the host; the best of them go to trial."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from esper.controller.candidate import Candidate
from esper.events import Score, Scored, Signal
from esper.growth.phases.course import refused, try_out
from esper.growth.phases.phase import Next, Phase
from esper.growth.readings import Readings
from esper.growth.work import Work
from esper.signals.shadow import Shadow, few_examples
from esper.surgery.capture import MAX_PASSES, Capture, Pair
from esper.surgery.random_streams import streams_kept

HALVE = 1 / 3
UNFITTED = 0.1


class Learn(Phase):
    """Candidates learn in the shadow; those that explain the held-out gradient best go to trial."""

    name = "learn"
    repeats = False

    def __init__(self, work: Work, candidates: Iterable[Candidate], signals: Sequence[Signal]) -> None:
        super().__init__(work)
        self._signals = tuple(signals)
        self._candidates = {c.name: c for c in candidates}
        device = next(work.setup.host.model.parameters()).device
        bodies = {name: (c.site, work.birth(c).body.to(device)) for name, c in self._candidates.items()}
        ranks = work.setup.training.ranks
        self._shadow = Shadow(bodies, pooling=ranks if ranks.size > 1 else None)
        self._readings = self._watch()
        self._left = work.setup.pace.shadow
        self._unfitted: dict[str, list[Pair]] = {}

    def step(self) -> Next | None:
        pairs, pace = self._readings.take(), self.work.setup.pace
        self._left -= 1
        if self.work.setup.host.differentiable or self._left >= UNFITTED * pace.shadow:
            with streams_kept():
                self._shadow.update(pairs)
        else:
            self._keep_unfitted(pairs)
        if self._left == int((1 - HALVE) * pace.shadow) and len(self._candidates) > 1:
            self._halve(pairs)
        return None if self._left > 0 else self._choose()

    def stop(self) -> None:
        self._readings.stop()

    def state_dict(self) -> dict[str, Any]:
        return {
            "left": self._left,
            "scale": self._readings.scale,
            "candidates": list(self._candidates),
            "signals": msgspec.to_builtins(self._signals),
            "shadow": self._shadow.state_dict(),
            "unfitted": {site: [list(pair) for pair in pairs] for site, pairs in self._unfitted.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._left, self._readings.scale = state["left"], state["scale"]
        self._shadow.load_state_dict(state["shadow"])
        self._unfitted = {site: [Pair(*pair) for pair in pairs] for site, pairs in state["unfitted"].items()}

    def _watch(self) -> Readings:
        sites = {c.site.name: c.site for c in self._candidates.values()}
        training = self.work.setup.training
        return Readings(training, Capture(training.model, sites.values(), pick=few_examples))

    def _keep_unfitted(self, pairs: Mapping[str, Sequence[Pair]]) -> None:
        for site, new in pairs.items():
            kept = self._unfitted.setdefault(site, [])
            kept.extend(new)
            del kept[:-MAX_PASSES]

    def _halve(self, latest: Mapping[str, Sequence[Pair]]) -> None:
        self._readings.stop()  # it would read the held-out passes, too
        names = set(self.work.setup.controller.halve(self._scores(latest)))
        self._shadow.keep(names)
        self._candidates = {name: c for name, c in self._candidates.items() if name in names}
        self._readings = self._watch()

    def _scores(self, otherwise: Mapping[str, Sequence[Pair]]) -> list[Score]:
        """Best first; on held-out pairs, or on ``otherwise`` where ``evaluate`` gives no gradients."""
        host = self.work.setup.host
        with streams_kept():
            if host.differentiable:
                appraisal = self._shadow.appraisal()
                host.show(self._readings.sites, appraisal.add)
                worths = appraisal.worths()
            else:
                worths = self._shadow.worth(otherwise)
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

    def _choose(self) -> Next:
        work = self.work
        self.stop()
        scores = self._scores(self._unfitted)
        chosen = list(work.setup.controller.choose(scores))
        work.emit(Scored(step=work.tally.step, scores=tuple(scores), chosen=tuple(chosen)))
        trained = {self._candidates[name]: self._shadow.bodies[name][1] for name in chosen}
        grafts = {candidate: work.start_of(candidate, body) for candidate, body in trained.items()}
        self._shadow.keep(())
        if not chosen:
            best = scores[0].candidate if scores else ""
            return refused(work, best, _why_none(scores))
        return try_out(work, grafts)


def _why_none(scores: Sequence[Score]) -> str:
    if any(score.r2 > 0 for score in scores):
        return "the controller chose no candidate for trial"
    return "no candidate explains any of the held-out gradient"
