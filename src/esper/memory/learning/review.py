"""What becomes of all that an episode showed, held against all that was seen before. Writes nothing."""

from __future__ import annotations

from collections.abc import Mapping

from esper.memory.learning.contrast import verdict
from esper.memory.learning.ledger import Known
from esper.memory.learning.observation import Observation
from esper.memory.learning.patterns import towards
from esper.memory.learning.places import Places
from esper.memory.records import PatternKind
from esper.memory.stores.store import Sighting, Support

Observed = dict[int, tuple[Observation, Sighting]]
"""What an episode shows, by signature."""


class Review:
    """Patterns that are ``kept`` and those that are ``dropped``; what is ``held`` to be a pattern of which sort.

    ``support`` says in how many episodes each was seen, this one among them, that is no pattern yet; and each pattern
    that was seen twice as often since it was last asked whether it is one.
    """

    def __init__(
        self,
        observed: Observed,
        standing: Mapping[int, Known | Support],
        places: Places,
        min_episodes: int,
    ) -> None:
        self.observed = observed
        self._standing = standing
        self.places = places
        self._min_episodes = min_episodes
        self.kept: dict[int, Known] = {}
        self.dropped: list[int] = []
        self.support: dict[int, Support] = {}
        self.held: dict[int, PatternKind] = {}
        for sign, (one, _) in observed.items():
            before = standing[sign]
            if isinstance(before, Known):
                self._ask(sign, before)
            elif not one.counter:
                self._count(sign, before, there=False)

    def _ask(self, sign: int, known: Known) -> None:
        count = known.tally.occurrences
        asked = not count & (count + 1)
        if asked:
            self._count(sign, _support_of(known), there=True)
        if not asked or self.held.get(sign) == known.pattern or known.tally.used:
            self.kept[sign] = known
        else:
            self.dropped.append(sign)

    def _count(self, sign: int, before: Support, *, there: bool) -> None:
        one, seen = self.observed[sign]
        self.support[sign] = told = Support(before.seen + 1, before.won + seen.reward)
        if told.seen >= self._min_episodes:
            pattern = verdict(one, told, self.places.ground(one), there=there)
            if pattern is not None:
                self.held[sign] = pattern

    def fresh(self) -> list[int]:
        """What is held and not there yet.

        Not those of tools alone that were never seen but with one and the same action, where that is a pattern.
        """
        fresh = [sign for sign in self.held if sign not in self.kept]
        exact = self._exact() if fresh else {}
        return [
            sign
            for sign in fresh
            if self.observed[sign][0].exact or self.support[sign].seen > exact.get(self._place(sign), 0)
        ]

    def _exact(self) -> dict[tuple[PatternKind, int, int], int]:
        """How often what the tools did, too, was seen, where that is a pattern."""
        told = {}
        for sign, (one, _) in self.observed.items():
            before = self._standing[sign]
            if one.exact and isinstance(before, Known):
                told[self._place(sign)] = before.tally.occurrences + 1
            elif one.exact and sign in self.held:
                told[self._place(sign)] = self.support[sign].seen
        return told

    def _place(self, sign: int) -> tuple[PatternKind, int, int]:
        one, seen = self.observed[sign]
        return one.kind, seen.first, seen.last


def _support_of(known: Known) -> Support:
    tally = known.tally
    weight = tally.successes + tally.failures
    share = tally.successes / weight if weight else 0.0
    return Support(tally.occurrences, tally.occurrences * towards(known.pattern, share))
