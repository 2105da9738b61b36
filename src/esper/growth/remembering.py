"""Writes what a run decides into a memory, and turns what the memory knows into opinions on candidates.

Listens to a Grower's events; nothing in growth itself knows of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from esper.controller.advised import Opinion
from esper.events import AnyEvent, Score, Spared
from esper.growth.decisions import progress, settled
from esper.growth.episodes import TRIAL, Places, action_of, entry_of, situation
from esper.growth.run_memory import Answer, RunMemory
from esper.memory.records import Value

ENOUGH: Final = 10
"""Episodes of a family of grafts, all features alike, from which on it is judged by itself."""


class Remembering:
    """The memory of one run beside its history: fulfils `Adviser`, and hears every event.

    ``places`` are the network's as it is now, ``history`` is that of the run so far; ``tell`` adds an event to it.
    """

    def __init__(
        self,
        memory: RunMemory,
        places: Callable[[], Places],
        history: Callable[[], Sequence[AnyEvent]],
        tell: Callable[[AnyEvent], None],
    ) -> None:
        self.memory = memory
        self._places = places
        self._history = history
        self._tell = tell

    def hear(self, _event: AnyEvent) -> None:
        """Write the decisions that the latest event has settled."""
        for decision in settled(self._history()):
            self.memory.write(entry_of(decision, self._places(), self.memory.trained))

    def opinions(self, scores: Sequence[Score]) -> Mapping[str, Opinion]:
        """What the memory knows of trials like these."""
        usual = self.memory.ask({}, TRIAL)
        if usual is None or not usual.num_episodes:
            return {}
        found = {score.candidate: self._opinion(score, usual.mean) for score in scores}
        return {name: opinion for name, opinion in found.items() if opinion is not None}

    def spare(self, opinions: Sequence[Opinion]) -> None:
        """Tell each trial that is not held."""
        for opinion in opinions:
            self._tell(
                Spared(
                    step=self._history()[-1].step,
                    candidate=opinion.candidate,
                    chance=opinion.mean,
                    upper=opinion.upper,
                    usual=opinion.usual,
                    num_episodes=opinion.num_episodes,
                    evidence=opinion.evidence,
                    runs=self.memory.runs_of(opinion.evidence),
                )
            )

    def _opinion(self, score: Score, usual: float) -> Opinion | None:
        features = situation(self._places(), score, *progress(self._history()))
        answer = self._own_or_general(features, action_of(score.candidate))
        if answer is None or 2 * answer.num_matched < len(features):
            return None
        return Opinion(
            candidate=score.candidate,
            mean=answer.mean,
            upper=answer.upper,
            usual=usual,
            num_episodes=answer.num_episodes,
            evidence=answer.evidence,
        )

    def _own_or_general(self, features: Mapping[str, Value], action: str) -> Answer | None:
        """What is known of this family of grafts where that is enough, else of all trials in such situations."""
        own = self.memory.ask(features, action)
        if own is not None and own.num_episodes >= ENOUGH and own.num_matched == len(features):
            return own
        return self.memory.ask(features, TRIAL)
