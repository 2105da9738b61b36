"""Playbooks and heuristics, made of the patterns as they are now. Knows the store by its Protocol."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Final

import msgspec

from esper.memory.identity import Clock, signature_of
from esper.memory.learning.merge import trust
from esper.memory.learning.trust import Trust
from esper.memory.learning.wording import scope_of
from esper.memory.records import Evidence, Item, PatternKind
from esper.memory.stores.store import Filter, Store

MIN_EPISODES: Final = 3
"""A heuristic stands on at least so many episodes."""
CONFIDENCE: Final = (0.05, 0.95)
_EVIDENCE: Final = 10
_PATTERNS: Final = 500
_EXPERIENCES: Final = 200
_LINES: Final = 5


class Heuristic(msgspec.Struct, frozen=True):
    """When ``condition``, do ``action``. ``confidence`` is the lower bound of its trust, within [0.05, 0.95].

    ``rather_than`` are actions that did worse under the same condition.
    """

    condition: str
    action: tuple[str, ...]
    confidence: float
    item: str
    rather_than: tuple[str, ...] = ()


class Playbook(msgspec.Struct, frozen=True):
    """How a kind of task is done: steps in order, when and when not, what goes wrong, what comes of it, the proof."""

    steps: tuple[str, ...]
    when: str
    unless: tuple[str, ...]
    pitfalls: tuple[str, ...]
    expected: str
    trust: Trust
    evidence: tuple[Evidence, ...]


class Guide:
    """Makes playbooks and heuristics; nothing of them is stored, so they are never older than the patterns."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    def playbook(self, namespace: str, task_type: str, domain: str) -> Playbook | None:
        """The approach or sequence with the best lower bound for this kind of task."""
        filter = Filter(namespace=namespace, task_type=task_type, domain=domain, kinds=("pattern",))
        found = self._store.items.find(filter, limit=_PATTERNS)
        ways = [
            item
            for item in found
            if item.pattern in ("approach", "sequence") and item.tally.state == "active"
        ]
        if not ways:
            return None
        best = max(ways, key=self._worth)
        return self._playbook(best, found)

    def _worth(self, item: Item) -> tuple[float, int, int, str]:
        """Trust, then the number of steps, then how exactly they say what is done."""
        steps = item.lesson.actions
        return self._trust(item).lower, len(steps), sum(map(len, steps)), item.id

    def _playbook(self, best: Item, found: Sequence[Item]) -> Playbook:
        assert best.signature is not None
        belief = self._trust(best)
        return Playbook(
            steps=best.lesson.actions,
            when=" ".join(f"{name} {value}" for name, value in sorted(best.lesson.context.items())),
            unless=self._unless(best)[:_LINES],
            pitfalls=tuple(item.lesson.text for item in found if item.pattern == "antipattern")[:_LINES],
            expected=f"works in {belief.mean:.0%} of cases ({belief.lower:.0%} to {belief.upper:.0%})",
            trust=belief,
            evidence=tuple(self._store.sightings.evidence(best.signature, _EVIDENCE)),
        )

    def _unless(self, best: Item) -> tuple[str, ...]:
        """Features with which the same steps failed more than once and never worked, the commonest first."""
        scope = scope_of(best.task_type, best.domain)
        signature = signature_of(best.namespace, "sequence", scope, "", *best.lesson.actions)
        failed: Counter[str] = Counter()
        worked: set[str] = set()
        for one in self._store.sightings.experiences(signature, _EXPERIENCES):
            told = [
                f"{name} {value}" for name, value in one.situation.items() if isinstance(value, str | bool)
            ]
            (failed if one.reward < 0.5 else worked).update(told)
        return tuple(name for name, count in failed.most_common() if count > 1 and name not in worked)

    def heuristics(self, namespace: str, limit: int) -> list[Heuristic]:
        """Decisions that did better than the others under their condition, and recoveries that cure, by confidence."""
        decisions = self._patterns(namespace, "decision")
        rivals: dict[str, list[Item]] = defaultdict(list)
        for item in (*decisions, *self._patterns(namespace, "antipattern")):
            rivals[item.lesson.condition].append(item)
        told = [self._heuristic(item, rivals[item.lesson.condition]) for item in decisions]
        cures = self._patterns(namespace, "recovery")
        told += [self._heuristic(item, rivals[item.lesson.condition]) for item in cures]
        good = [one for one in told if one is not None]
        return sorted(good, key=lambda one: (-one.confidence, one.item))[:limit]

    def _patterns(self, namespace: str, kind: PatternKind) -> list[Item]:
        filter = Filter(namespace=namespace, kinds=("pattern",), patterns=(kind,))
        return self._store.items.find(filter, limit=_PATTERNS)

    def _heuristic(self, item: Item, rivals: Sequence[Item]) -> Heuristic | None:
        """``None`` unless it works more often than not, and better than at least one rival where there are any."""
        belief = self._trust(item)
        worse = [rival for rival in rivals if self._works(rival) < belief.lower]
        cures = item.pattern == "recovery"
        if item.tally.occurrences < MIN_EPISODES or belief.mean <= 0.5 or not (worse or cures):
            return None
        low, high = CONFIDENCE
        return Heuristic(
            condition=item.lesson.condition,
            action=item.lesson.actions,
            confidence=min(max(belief.lower, low), high),
            item=item.id,
            rather_than=tuple(" → ".join(rival.lesson.actions) for rival in worse),
        )

    def _works(self, item: Item) -> float:
        """The mean chance that its actions work: those that it warns of seldom do."""
        mean = self._trust(item).mean
        return 1.0 - mean if item.pattern == "antipattern" else mean

    def _trust(self, item: Item) -> Trust:
        return trust(item.tally, self._clock())
