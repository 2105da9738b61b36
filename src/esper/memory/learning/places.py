"""What things are held against: all that was done about an error, and all that is done in a kind of task."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

from esper.memory.identity import signature_of
from esper.memory.learning.habits import Habits, added, habits_of, outcomes, unbroken
from esper.memory.learning.ledger import Ledger
from esper.memory.learning.observation import Observation
from esper.memory.learning.recoveries import recoveries
from esper.memory.learning.wording import scope
from esper.memory.records import Episode
from esper.memory.stores.store import Store, Support


class Places:
    """The errors that an episode did something about, with the support of each; ``habits`` are told by kind of task."""

    def __init__(self, namespace: str, observed: Iterable[Observation]) -> None:
        self._namespace = namespace
        self.habits: Mapping[str, Habits] = {}
        self._bases: dict[tuple[bool, str], Support] = {}
        counts: dict[int, list[float]] = defaultdict(list)
        for one in observed:
            if one.kind == "recovery":
                counts[self._signature(one)].append(one.reward)
        self.support = {sign: Support(len(won), sum(won)) for sign, won in counts.items()}

    def _signature(self, one: Observation) -> int:
        return signature_of(self._namespace, "place", one.condition)

    def add(self, before: Mapping[int, Support]) -> None:
        """Count in what was there before."""
        for sign, own in self.support.items():
            told = before.get(sign) or Support(0, 0.0)
            self.support[sign] = Support(told.seen + own.seen, told.won + own.won)

    def base(self, one: Observation) -> Support:
        """All that was seen where ``one`` was: attempts at an error, deeds, else episodes of its kind of task."""
        if one.kind == "recovery":
            return self.support[self._signature(one)]
        alone = one.kind == "antipattern"
        base = self._bases.get((alone, one.scope))
        if base is None:
            count, won = (unbroken if alone else outcomes)(self.habits[one.scope])
            base = self._bases[alone, one.scope] = Support(int(count), won)
        return base


def with_habits(ledger: Ledger, episode: Episode, more: Habits) -> dict[str, dict[str, float]]:
    """Count the episode in, for its kind of task and for all; the habits as they are now."""
    before = ledger.habits(dict.fromkeys(("", scope(episode))))
    now = {name: added(habits, more) for name, habits in before.items()}
    ledger.put_habits(now)
    return now


def unlearn(store: Store, episode: Episode) -> None:
    """Take out of habits and places what an episode, given with its steps, put in."""
    if not episode.steps:
        return
    reward = episode.outcome.reward if episode.outcome else 0.0
    scopes = list(dict.fromkeys(("", scope(episode))))
    before = store.sightings.habits(episode.namespace, scopes)
    left = {name: added(before[name], habits_of(episode, reward), sign=-1.0) for name in scopes}
    store.sightings.put_habits(episode.namespace, left)
    own = Places(episode.namespace, distinct(episode)).support
    known = store.sightings.support(list(own)) if own else {}
    store.sightings.put_support(
        {sign: Support(told.seen - own[sign].seen, told.won - own[sign].won) for sign, told in known.items()}
    )


def distinct(episode: Episode) -> list[Observation]:
    """What was done about errors, the same thing about the same error once."""
    return list({(one.condition, one.actions): one for one in reversed([*recoveries(episode, 0.0)])}.values())
