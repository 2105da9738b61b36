"""Rules that spare trials which experience says are refused. Does not know where the experience comes from."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from esper.controller.candidate import Candidate
from esper.controller.rules import Controller, Pace, View
from esper.errors import ConfigurationError
from esper.events import Score


@dataclass(frozen=True)
class Opinion:
    """What came of trials like one candidate's, in ``num_episodes`` situations like this one.

    ``mean`` is the chance that it is kept and ``upper`` the upper end of its interval; ``usual`` the chance of any
    trial, whatever is tried and wherever. ``evidence`` names episodes in which it was refused.
    """

    candidate: str
    mean: float
    upper: float
    usual: float
    num_episodes: int
    evidence: tuple[str, ...] = ()


class Adviser(Protocol):
    """Has experience. The same question within one run has the same answer."""

    def opinions(self, scores: Sequence[Score]) -> Mapping[str, Opinion]:
        """What is known of each candidate that is about to go to trial; the unknown ones are left out."""

    def spare(self, opinions: Sequence[Opinion]) -> None:
        """Take note of the trials that are not held for these opinions' sake."""


@dataclass(frozen=True)
class Caution:
    """How sure experience must be before a trial is spared.

    Experience that knows nothing of situations (shuffled outcomes, for one) finds the same chance everywhere, the usual
    one, and an upper end below the mean of all is then found once in twenty times: so much can wrong experience cost.

    Args:
        min_episodes: distinct episodes in situations like this one.
        worth: a trial with at least this chance of being kept is always worth its price.
        hardly: a trial with less than this chance is not, even where no trial has a better one.
        explore: one in so many of the trials that would be spared is held all the same, so that experience which
            was wrong, or no longer holds, is corrected.
    """

    min_episodes: int = 3
    worth: float = 0.25
    hardly: float = 0.1
    explore: int = 10

    def __post_init__(self) -> None:
        if self.min_episodes < 1 or self.explore < 1:
            raise ConfigurationError("min_episodes and explore must be at least 1")
        if not 0 <= self.hardly <= self.worth < 1:
            raise ConfigurationError("hardly and worth must be chances, hardly not above worth")

    def spares(self, opinion: Opinion) -> bool:
        """Whether even the upper end of the chance is below what is worth a trial, and below what is usual."""
        enough = opinion.num_episodes >= self.min_episodes
        return enough and opinion.upper < min(self.worth, max(self.hardly, opinion.usual))

    def explores(self, score: Score) -> bool:
        """Whether this trial is held in any case: a lot that candidate and score alone decide."""
        drawn = hashlib.sha256(f"{score.candidate} {score.score!r}".encode()).digest()
        return int.from_bytes(drawn[:4], "big") % self.explore == 0


@dataclass(frozen=True)
class Advised:
    """A controller whose choices for trial are put to an adviser; everything else is as ``rules`` have it."""

    rules: Controller
    adviser: Adviser
    caution: Caution = Caution()

    def pace(self, total_steps: int | None) -> Pace:
        """That of the rules."""
        return self.rules.pace(total_steps)

    def propose(self, view: View) -> Sequence[Candidate]:
        """As the rules do."""
        return self.rules.propose(view)

    def halve(self, scores: Sequence[Score]) -> Sequence[str]:
        """As the rules do."""
        return self.rules.halve(scores)

    def choose(self, scores: Sequence[Score]) -> Sequence[str]:
        """What the rules choose, without the candidates that are hardly ever kept in situations like this one.

        Nothing takes their place: it would have a lower score.
        """
        by_name = {score.candidate: score for score in scores}
        chosen = [by_name[name] for name in self.rules.choose(scores)]
        opinions = self.adviser.opinions(chosen) if chosen else {}
        spared = {
            score.candidate: opinions[score.candidate]
            for score in chosen
            if score.candidate in opinions
            and self.caution.spares(opinions[score.candidate])
            and not self.caution.explores(score)
        }
        if spared:
            self.adviser.spare(list(spared.values()))
        return [score.candidate for score in chosen if score.candidate not in spared]

    def rest(self, num_refusals: int) -> int | None:
        """That of the rules."""
        return self.rules.rest(num_refusals)
