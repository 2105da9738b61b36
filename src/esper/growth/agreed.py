"""A controller whose every answer is that of rank 0. Decides nothing itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from esper.controller.candidate import Candidate
from esper.controller.rules import Controller, Pace, View
from esper.events import Score
from esper.growth.ranks import Ranks


@dataclass(frozen=True)
class Agreed:
    """Asks ``rules`` on rank 0 and tells the others: a memory, or a policy that learns, may know more there."""

    rules: Controller
    ranks: Ranks

    def pace(self, total_steps: int | None) -> Pace:
        """That of rank 0."""
        return self.ranks.decided(lambda: self.rules.pace(total_steps))

    def propose(self, view: View) -> Sequence[Candidate]:
        """The candidates of rank 0, by name."""
        by_name = {candidate.name: candidate for candidate in view.candidates}
        names = self.ranks.decided(lambda: [candidate.name for candidate in self.rules.propose(view)])
        return [by_name[name] for name in names]

    def halve(self, scores: Sequence[Score]) -> Sequence[str]:
        """The names that rank 0 keeps."""
        return self.ranks.decided(lambda: list(self.rules.halve(scores)))

    def choose(self, scores: Sequence[Score]) -> Sequence[str]:
        """The names that rank 0 chooses."""
        return self.ranks.decided(lambda: list(self.rules.choose(scores)))

    def rest(self, num_refusals: int) -> int | None:
        """That of rank 0."""
        return self.ranks.decided(lambda: self.rules.rest(num_refusals))
