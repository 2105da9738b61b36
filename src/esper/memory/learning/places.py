"""What things are held against: all that was done about an error, and all that is done in a kind of task."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

from esper.memory.identity import signature_of
from esper.memory.learning.contrast import Ground
from esper.memory.learning.course import Course
from esper.memory.learning.habits import Habits, added, habits_of, outcomes, unbroken
from esper.memory.learning.ledger import Ledger
from esper.memory.learning.observation import Observation
from esper.memory.learning.recoveries import recoveries
from esper.memory.records import Episode
from esper.memory.stores.store import Store, Support


class Places:
    """The errors that an episode did something about, with the support of each; ``habits`` are told by kind of task."""

    def __init__(self, namespace: str, attempts: Iterable[tuple[str, float]]) -> None:
        """``attempts`` are conditions, each with whether it was cured."""
        self._namespace = namespace
        self.habits: Mapping[str, Habits] = {}
        self._grounds: dict[tuple[bool, str], Ground] = {}
        counts: dict[int, list[float]] = defaultdict(list)
        for condition, won in attempts:
            counts[self._signature(condition)].append(won)
        self.support = {sign: Support(len(won), sum(won)) for sign, won in counts.items()}

    def _signature(self, condition: str) -> int:
        return signature_of(self._namespace, "place", condition)

    def add(self, before: Mapping[int, Support]) -> None:
        """Count in what was there before."""
        for sign, own in self.support.items():
            told = before.get(sign) or Support(0, 0.0)
            self.support[sign] = Support(told.seen + own.seen, told.won + own.won)

    def ground(self, one: Observation) -> Ground:
        """What ``one`` is held against: attempts at an error, deeds, else episodes of its kind of task."""
        if one.kind == "recovery":
            return Ground.of(self.support[self._signature(one.condition)], self.habits[one.scope])
        alone = one.kind == "antipattern"
        found = self._grounds.get((alone, one.scope))
        if found is None:
            habits = self.habits[one.scope]
            count, won = (unbroken if alone else outcomes)(habits)
            found = self._grounds[alone, one.scope] = Ground.of(Support(int(count), won), habits)
        return found


def with_habits(ledger: Ledger, scope: str, more: Habits) -> dict[str, dict[str, float]]:
    """Count an episode in, for its kind of task and for all; the habits as they are now."""
    before = ledger.habits(dict.fromkeys(("", scope)))
    now = {name: added(habits, more) for name, habits in before.items()}
    ledger.put_habits(now)
    return now


def unlearn(store: Store, episode: Episode) -> None:
    """Take out of habits and places what an episode, given with its steps, put in."""
    if not episode.steps:
        return
    reward = episode.outcome.reward if episode.outcome else 0.0
    course = Course(episode)
    scopes = list(dict.fromkeys(("", course.scope)))
    before = store.sightings.habits(episode.namespace, scopes)
    left = {name: added(before[name], habits_of(course, reward), sign=-1.0) for name in scopes}
    store.sightings.put_habits(episode.namespace, left)
    own = Places(episode.namespace, attempted(course)).support
    known = store.sightings.support(list(own)) if own else {}
    store.sightings.put_support(
        {sign: Support(told.seen - own[sign].seen, told.won - own[sign].won) for sign, told in known.items()}
    )


def attempted(course: Course) -> Iterable[tuple[str, float]]:
    """The errors that something was done about, each with whether it was cured; the same thing counts once."""
    shown = reversed([*recoveries(course, 0.0)])  # the first time counts
    return {one.signature: (one.condition, reward) for one, _, _, reward in shown}.values()
