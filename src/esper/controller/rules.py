"""Where, when and what to grow, by fixed rules. Knows signals and scores, not the network."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from esper.controller.candidate import Candidate
from esper.errors import ConfigurationError
from esper.events import Score, Signal


@dataclass(frozen=True)
class Pace:
    """How long each part of a growth round takes, in optimizer steps.

    ``start`` is the step of the first round; ``last`` the step after which no graft is attached any more
    (``None``: no such step). After growth there are ``prunings`` occasions to prune, each ``prune_every`` steps after
    the one before it, or after the end of growth.
    """

    start: int
    sense: int
    shadow: int
    trial: int
    rest: int
    last: int | None
    prunings: int = 4
    prune_every: int = 100

    @property
    def round(self) -> int:
        """Steps from the beginning of a round to its verdict."""
        return self.sense + self.shadow + self.trial


@dataclass(frozen=True)
class View:
    """What a controller may know when it proposes.

    ``candidates`` are all that the budget allows; ``refusals`` counts by name how often a trial has ended in a refusal.
    """

    candidates: Sequence[Candidate]
    signals: Sequence[Signal]
    refusals: Mapping[str, int]


class Controller(Protocol):
    """Decides what is tried; the judge decides what stays. Deterministic: the same view gives the same answer."""

    def pace(self, total_steps: int | None) -> Pace:
        """The pace of a run of ``total_steps`` optimizer steps (``None``: unknown)."""

    def propose(self, view: View) -> Sequence[Candidate]:
        """The candidates that learn in the shadow; none ends the round."""

    def halve(self, scores: Sequence[Score]) -> Sequence[str]:
        """Names of the candidates that go on learning after a third of the shadow updates."""

    def choose(self, scores: Sequence[Score]) -> Sequence[str]:
        """Names of the candidates that go to trial, best first; none refuses the round."""

    def rest(self, num_refusals: int) -> int | None:
        """How many times the usual rest is due after ``num_refusals`` refused rounds in a row; ``None`` ends growth."""


@dataclass(frozen=True)
class Rules:
    """The best shadow scores, on the sites in most need; the price is left to the judge.

    A site is in need where the gradient asks for what its units cannot express, and where they are of low rank.

    Args:
        num_shadows: most candidates that learn at once in the shadow.
        num_trials: most candidates that go to trial.
        survivors: share of the candidates that go on learning after a third of the shadow updates.
        min_r2: least share of the held-out gradient that a candidate must explain to be tried.
        start: step of the first round.
        sense: sensed steps before a proposal.
        updates: shadow updates of a round; fewer than about 300 mis-rank slow learners.
        trial: steps of a trial; fewer than about 300 mis-judge them.
        rest_steps: steps between rounds; doubled by every refusal in a row.
        stop_after: refused rounds in a row that end growth.
        close: share of ``total_steps`` after which nothing is attached.
        smaller: of one blueprint in several sizes at one site the smallest goes to trial whose score is at least this
            share of the best; 1.0: always the best. Scores grow with size, and a later round can add what is missing.
        prunings: occasions to prune, spread evenly over what is left of ``total_steps``; else ``rest_steps`` apart.
    """

    num_shadows: int = 14
    num_trials: int = 2
    survivors: float = 0.3
    min_r2: float = 0.0
    start: int = 1
    sense: int = 10
    updates: int = 300
    trial: int = 300
    rest_steps: int = 100
    stop_after: int = 3
    close: float = 0.6
    prunings: int = 4
    smaller: float = 1.0

    def __post_init__(self) -> None:
        if min(self.num_shadows, self.num_trials, self.sense, self.updates, self.trial) < 1:
            raise ConfigurationError("counts and durations of Rules must be at least 1")
        if self.prunings < 0:
            raise ConfigurationError("prunings must be at least 0")
        if not 0 < self.close <= 1:
            raise ConfigurationError("close must be a share of the run above 0 and at most 1")
        if not 0 < self.smaller <= 1:
            raise ConfigurationError("smaller must be a share of the best score above 0 and at most 1")

    def pace(self, total_steps: int | None) -> Pace:
        """As given; in short runs a part of a round takes at most a twentieth of ``total_steps``."""
        if total_steps is None:
            steps = self.sense, self.updates, self.trial, self.rest_steps
            return Pace(self.start, *steps, None, self.prunings, self.rest_steps)
        longest, last = max(total_steps // 20, 1), int(self.close * total_steps)
        return Pace(
            start=self.start,
            sense=min(self.sense, longest),
            shadow=min(self.updates, longest),
            trial=min(self.trial, longest),
            rest=min(self.rest_steps, longest),
            last=last,
            prunings=self.prunings,
            prune_every=max((total_steps - last) // (self.prunings + 1), 1),
        )

    def propose(self, view: View) -> Sequence[Candidate]:
        """All recipes of the site in most need, then of the next, until the shadow is full.

        Candidates that a trial has refused come after those that have not been tried.
        """
        places = _places(view.signals)

        def order(candidate: Candidate) -> tuple[int, float, str]:
            place = places.get(candidate.site.name, math.inf)
            return view.refusals.get(candidate.name, 0), place, candidate.name

        return sorted(view.candidates, key=order)[: self.num_shadows]

    def halve(self, scores: Sequence[Score]) -> Sequence[str]:
        """The better ``survivors``, never fewer than go to trial; with ``smaller`` below 1 all sizes of these."""
        ranked = _ranked(scores)
        best = ranked[: max(math.ceil(self.survivors * len(ranked)), self.num_trials)]
        if self.smaller == 1.0:
            return best
        going = {_family(score) for score in scores if score.candidate in best}
        others = {score.candidate for score in scores if _family(score) in going}
        return [name for name in ranked if name in others]

    def choose(self, scores: Sequence[Score]) -> Sequence[str]:
        """The best of each site by score, among those that explain a share of the gradient.

        Scores compare recipes at one site well and sites with each other less so: gradients grow towards the input.
        """
        worthy = [s for s in scores if s.r2 > self.min_r2 and s.gain > 0]
        best = {site: _ranked([s for s in worthy if s.site == site])[0] for site in {s.site for s in worthy}}
        chosen = [name for name in _ranked(worthy) if name in best.values()][: self.num_trials]
        return chosen if self.smaller == 1.0 else [self._least(name, worthy) for name in chosen]

    def _least(self, name: str, worthy: Sequence[Score]) -> str:
        """The smallest of the same blueprint at the same site that scores enough, ``name`` being the best."""
        best = next(score for score in worthy if score.candidate == name)
        enough = [s for s in worthy if _family(s) == _family(best) and s.score >= self.smaller * best.score]
        return min(enough, key=lambda s: (s.params, s.macs, s.candidate), default=best).candidate

    def rest(self, num_refusals: int) -> int | None:
        """Doubled by every refusal in a row; growth ends after ``stop_after`` of them."""
        if num_refusals >= self.stop_after:
            return None
        return 1 << num_refusals


def _places(signals: Sequence[Signal]) -> dict[str, int]:
    """Sites by need: the place by novelty gain, largest first, plus the place by effective rank, lowest first.

    Over 80 windows of two tasks the best candidate's site was among the first three in 65; by novelty gain alone in 55,
    by effective rank alone in 53, by lot in 40 (`benchmarks/LOG.md`).
    """
    novelty = [-_or_least(signal.novelty_gain) for signal in signals]
    rank = [-_or_least(-signal.effective_rank) for signal in signals]
    return {
        signal.site: sum(other < gain for other in novelty) + sum(other < share for other in rank)
        for signal, gain, share in zip(signals, novelty, rank, strict=True)
    }


def _family(score: Score) -> tuple[str, str]:
    """Site and blueprint: what is alike but in size."""
    return score.site, score.candidate.removeprefix(f"{score.site} ").partition("(")[0]


def _ranked(scores: Sequence[Score]) -> list[str]:
    return [score.candidate for score in sorted(scores, key=lambda s: (-_or_least(s.score), s.candidate))]


def _or_least(value: float) -> float:
    """``value``; what is not a number comes last, as nothing can be compared with it."""
    return -math.inf if math.isnan(value) else value
