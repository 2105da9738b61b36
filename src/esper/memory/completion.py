"""What happens when an episode ends: score, credit, reflection, patterns and trust, in one transaction.

Does not know where episodes come from, nor how they are recalled.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from esper.errors import EpisodeError
from esper.memory.identity import day_of
from esper.memory.learning.credit import credit
from esper.memory.learning.induce import MIN_EPISODES, induce
from esper.memory.learning.ledger import Ledger
from esper.memory.learning.merge import used
from esper.memory.learning.patterns import context_words
from esper.memory.learning.reflection import Reflect, reflect
from esper.memory.learning.score import score
from esper.memory.recall.ranking import NUM_NEARBY, nearby
from esper.memory.recall.words import date_words
from esper.memory.records import Episode, Feedback, Item, Lesson, Outcome, Tally
from esper.memory.redaction import Redactor
from esper.memory.stores.store import Effort, SearchText, Store

LEARNED_STEPS: Final = 1_000
"""Of a longer episode the last so many steps are learned from."""
SUCCESS: Final = 0.5
"""An episode of this reward counts among those that say what a kind of task costs."""
_DETAIL: Final = 4_000


class Learning(msgspec.Struct, frozen=True, kw_only=True):
    """How the memory learns: ``min_episodes`` distinct ones make a pattern; ``reflect`` writes the reflection."""

    min_episodes: int = MIN_EPISODES
    reflect: Reflect = reflect


class Completion:
    """Ends episodes. One call is one transaction: all of it is there afterwards, or nothing."""

    def __init__(self, store: Store, redact: Redactor, learning: Learning) -> None:
        self._store = store
        self._redact = redact
        self._learning = learning
        self._ledger: Ledger | None = None

    def complete(self, id: str, outcome: Outcome, at: int) -> Episode:
        """The episode as it is now: with its last steps, score, credit and reflection.

        Raises:
            EpisodeError: it is not open, or not there.
        """
        outcome = self._redact(outcome)
        with self._store.transaction():
            ended = self._ended(id, at)
            ledger = self._opened(ended.namespace)
            done = self._judged(ended, outcome, ledger)
            if outcome.reward >= SUCCESS:
                ledger.add_effort(done, _effort(done))
            self._store.items.add([(_item_of(done), _words_of(done, self._tasks_before(id)))])
            seen = induce(self._store, ledger, done, outcome.reward, min_episodes=self._learning.min_episodes)
            self._store.episodes.finish(done, seen)
            self._settle(done, outcome, ledger)
            ledger.close(self._store.touch(done.namespace))
        self._ledger = ledger
        return done

    def _opened(self, namespace: str) -> Ledger:
        """The ledger of the last completion, if nothing was learned since; nobody has it until this one is stored."""
        kept, self._ledger = self._ledger, None
        if kept and kept.namespace == namespace and kept.stamp == self._store.stamp(namespace):
            return kept
        return Ledger(self._store, namespace)

    def abandon(self, id: str, at: int) -> Episode:
        """Give an open episode up: nothing is learned from it."""
        with self._store.transaction():
            ended = msgspec.structs.replace(self._ended(id, at), state="abandoned")
            self._store.episodes.finish(ended)
        return ended

    def _ended(self, id: str, at: int) -> Episode:
        found = self._store.episodes.get([id], steps=False).get(id)
        if found is None:
            raise EpisodeError(f"there is no episode {id}")
        if found.state != "open":
            raise EpisodeError(f"episode {id} is not open: it has ended already")
        steps = tuple(self._store.episodes.tail(id, LEARNED_STEPS))
        number = steps[-1].number if steps else 0
        ended = max(at, found.started)
        return msgspec.structs.replace(found, state="completed", ended=ended, steps=steps, num_steps=number)

    def _judged(self, episode: Episode, outcome: Outcome, ledger: Ledger) -> Episode:
        similar = ledger.efforts(episode)
        judged = msgspec.structs.replace(
            episode,
            outcome=outcome,
            score=score(outcome, episode.steps, _effort(episode), similar),
            credit=credit(episode.steps, outcome.reward),
        )
        return msgspec.structs.replace(
            judged, reflection=self._redact(self._learning.reflect(judged, outcome))
        )

    def _tasks_before(self, id: str) -> list[str]:
        """The tasks that this episode follows, oldest first, as many as lend their words."""
        tasks: list[str] = []
        for _ in range(NUM_NEARBY):
            followed = self._store.catalogue.relations(id, direction="from", type="follows")
            if not followed:
                break
            id = followed[-1].target
            tasks += [one.task for one in self._store.episodes.get([id], steps=False).values()]
        return tasks[::-1]

    def _settle(self, episode: Episode, outcome: Outcome, ledger: Ledger) -> None:
        """What was used in the episode earns or loses trust by how the episode ended."""
        at = episode.ended or 0
        for told in self._store.exposures.pending(episode.id):
            item = settle(self._store, msgspec.structs.replace(told, reward=outcome.reward, at=at))
            if item is not None and item.signature is not None:
                ledger.reread(item.signature)


def settle(store: Store, told: Feedback) -> Item | None:
    """Note a use and, where its reward is known, let the item earn or lose trust; the item as it was before.

    Runs in the caller's transaction.
    """
    store.exposures.use([told])
    item = store.items.get([told.item]).get(told.item)
    if item is not None and told.reward is not None:
        store.items.update({item.id: used(item.tally, told.reward, told.at)})
    return item


def _effort(episode: Episode) -> Effort:
    seconds = ((episode.ended or episode.started) - episode.started) / 1e9
    return Effort(
        episode.num_steps, seconds, sum(step.tokens or 0 for step in episode.steps), episode.started
    )


def _item_of(episode: Episode) -> Item:
    ended = episode.ended or episode.started
    reward = episode.outcome.reward if episode.outcome else 0.0
    return Item(
        id=episode.id,
        kind="episode",
        lesson=Lesson(text=episode.task),
        namespace=episode.namespace,
        task_type=episode.task_type,
        domain=episode.domain,
        created=ended,
        score=episode.score.total if episode.score else None,
        tally=Tally(successes=reward, failures=1.0 - reward, occurrences=1, touched=ended),
    )


def _words_of(episode: Episode, before: Sequence[str]) -> SearchText:
    told = episode.reflection
    parts = [f"{step.tool} {step.action} {step.error or ''}" for step in episode.steps]
    lines = [*parts, *told.worked, *told.failed] if told else parts
    reason = episode.outcome.reason if episode.outcome else ""
    detail = " ".join([reason, *dict.fromkeys(lines)])[:_DETAIL]
    return SearchText(
        title=episode.task,
        context=f"{context_words(episode)} {date_words(day_of(episode.started))}",
        detail=detail,
        nearby=nearby(before),
    )
