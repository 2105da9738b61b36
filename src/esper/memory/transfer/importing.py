"""Puts facts into a store and has it learn from them, in one transaction. Knows no format."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from esper.memory.completion import Completion, Learning
from esper.memory.identity import Clock
from esper.memory.learning.reflection import Reflect
from esper.memory.noting import words_of_note
from esper.memory.records import Episode, Exposure, Feedback, Item, Outcome, Reflection, Relation, Step
from esper.memory.redaction import Redactor
from esper.memory.stores.store import Filter, Store
from esper.memory.transfer.jsonl import (
    CheckpointLine,
    EpisodeLine,
    ExposureLine,
    Line,
    NoteLine,
    PatternLine,
    RelationLine,
)
from esper.memory.transfer.trace import BadLine, Trace


class Loaded(msgspec.Struct, frozen=True, kw_only=True):
    """What an import took: ids of episodes and notes, how many were there already, which lines were left out.

    ``num_unknown`` episodes do not say how they ended: they are kept as abandoned, and nothing is learned from them.
    """

    taken: tuple[str, ...] = ()
    num_already: int = 0
    num_unknown: int = 0
    bad: tuple[BadLine, ...] = ()


class Importing:
    """Writes into ``namespace``; everything is made free of secrets by ``redact`` first."""

    def __init__(
        self, store: Store, clock: Clock, namespace: str, redact: Redactor, learning: Learning
    ) -> None:
        self._store = store
        self._clock = clock
        self._namespace = namespace
        self._redact = redact
        self._learning = learning

    def traces(self, traces: Sequence[Trace], format: str, unsaid: Outcome | None) -> Loaded:
        """Foreign traces, oldest end first; ``unsaid`` is the outcome of those that tell none."""
        completion = Completion(self._store, self._redact, self._learning)
        now = self._clock()
        ordered = sorted(traces, key=lambda one: one.ended or one.started or now)
        taken: list[str] = []
        num_already = num_unknown = 0
        with self._store.transaction():
            for place, trace in enumerate(ordered):
                episode = self._episode(trace, format, now + place)
                if self._store.episodes.get([episode.id], steps=False):
                    num_already += 1
                    continue
                self._begin([episode])
                self._step(episode.id, episode.steps)
                end = trace.ended or max([episode.started, *(step.at for step in episode.steps)])
                outcome = trace.outcome or unsaid
                if outcome is None:
                    num_unknown += 1
                    completion.abandon(episode.id, end)
                else:
                    completion.complete(episode.id, outcome, end)
                taken.append(episode.id)
        return Loaded(taken=tuple(taken), num_already=num_already, num_unknown=num_unknown)

    def _episode(self, trace: Trace, format: str, now: int) -> Episode:
        started = now if trace.started is None else trace.started
        steps = [msgspec.structs.replace(step, at=step.at or started) for step in trace.steps]
        return Episode(
            id=trace.id(format),
            task=trace.task,
            task_type=trace.task_type,
            domain=trace.domain,
            namespace=self._namespace,
            context=trace.context,
            tags=trace.tags,
            started=started,
            steps=tuple(
                msgspec.structs.replace(step, number=number) for number, step in enumerate(steps, start=1)
            ),
        )

    def _begin(self, episodes: Iterable[Episode]) -> None:
        bare = [msgspec.structs.replace(one, state="open", steps=()) for one in episodes]
        self._store.episodes.add([self._redact(one) for one in bare])

    def _step(self, id: str, steps: Iterable[Step]) -> None:
        self._store.episodes.add_steps([(id, self._redact(step)) for step in steps])

    def lines(self, lines: Sequence[Line]) -> Loaded:
        """What ``export`` wrote: facts are replayed in order, then trust is set to what it was."""
        episodes = [line for line in lines if isinstance(line, EpisodeLine)]
        notes = [line for line in lines if isinstance(line, NoteLine)]
        with self._store.transaction():
            there = {
                *self._store.episodes.get([line.episode.id for line in episodes], steps=False),
                *self._store.items.get([line.item.id for line in notes]),
            }
            fresh = [line for line in episodes if line.episode.id not in there]
            self._begin([self._own(line.episode) for line in fresh])
            new_notes = [line for line in notes if line.item.id not in there]
            self._note(new_notes)
            known = [line.item for line in lines if isinstance(line, PatternLine)]
            pattern_ids = {item.id for item in known}
            relations = [line.relation for line in lines if isinstance(line, RelationLine)]
            plain = [one for one in relations if not {one.source, one.target} & pattern_ids]
            self._replay([self._own(line.episode) for line in fresh], plain)
            self._remember(lines, fresh, self._same_patterns(known), known)
            self._store.touch(self._namespace)
        taken = [line.episode.id for line in fresh] + [line.item.id for line in new_notes]
        return Loaded(taken=tuple(taken), num_already=len(there))

    def _own(self, episode: Episode) -> Episode:
        return msgspec.structs.replace(episode, namespace=self._namespace)

    def _note(self, lines: Sequence[NoteLine]) -> None:
        for line in lines:
            tally = msgspec.structs.replace(line.item.tally, shown=0)
            item = self._redact(msgspec.structs.replace(line.item, namespace=self._namespace, tally=tally))
            self._store.items.add([(item, words_of_note(self._store, item, line.tags))])
            self._store.catalogue.tag(item.id, line.tags)

    def _replay(self, episodes: Sequence[Episode], relations: Sequence[Relation]) -> None:
        """End episodes in the order in which they ended; relations come when they came: an end lends words by them."""
        told = {one.id: one.reflection for one in episodes if one.reflection is not None}
        learning = msgspec.structs.replace(self._learning, reflect=_as_told(told, self._learning.reflect))
        completion = Completion(self._store, self._redact, learning)
        waiting = deque(sorted(relations, key=lambda one: one.created))
        for episode in sorted(episodes, key=lambda one: (one.ended or one.started, one.id)):
            end = episode.ended or episode.started
            while waiting and waiting[0].created <= end:
                self._store.catalogue.relate(waiting.popleft())
            self._step(episode.id, episode.steps)
            if episode.state == "abandoned":
                completion.abandon(episode.id, end)
            elif episode.outcome is not None:
                completion.complete(episode.id, episode.outcome, end)
        for relation in waiting:
            self._store.catalogue.relate(relation)

    def _same_patterns(self, known: Sequence[Item]) -> dict[str, str]:
        """The id here of each pattern there; patterns that were not learned again are left out."""
        number = self._store.counts(self._namespace)["patterns"]
        filter = Filter(namespace=self._namespace, kinds=("pattern",))
        here = {_sense(item): item.id for item in self._store.items.find(filter, limit=number + 1)}
        return {item.id: here[_sense(item)] for item in known if _sense(item) in here}

    def _remember(
        self,
        lines: Sequence[Line],
        fresh: Sequence[EpisodeLine],
        ids: Mapping[str, str],
        patterns: Sequence[Item],
    ) -> None:
        """Trust as it was, what was shown and used, checkpoints; only of what is new here."""
        new = {line.episode.id for line in fresh}
        tallies = {line.item.id: line.item.tally for line in fresh if line.item is not None}
        if new:
            tallies |= {ids[item.id]: item.tally for item in patterns if item.id in ids}
        self._store.items.update(tallies)
        for line in lines:
            if isinstance(line, RelationLine):
                self._store.catalogue.relate(_related_here(line.relation, ids))
            if isinstance(line, CheckpointLine) and line.checkpoint.episode in new:
                self._store.catalogue.checkpoint(line.checkpoint)
            if isinstance(line, ExposureLine) and self._store.exposures.get(line.exposure.id) is None:
                self._store.exposures.add([_here(line.exposure, ids, self._namespace)])
                self._store.exposures.use([_used_here(use, ids) for use in line.uses])


def _as_told(told: Mapping[str, Reflection], otherwise: Reflect) -> Reflect:
    """The reflection that an episode had, whoever wrote it."""

    def reflect(episode: Episode, outcome: Outcome) -> Reflection:
        found = told.get(episode.id)
        return otherwise(episode, outcome) if found is None else found

    return reflect


def _sense(item: Item) -> tuple[object, ...]:
    """Equal for the same pattern in whatever memory."""
    return item.pattern, item.task_type, item.domain, item.lesson.condition, item.lesson.actions


def _here(exposure: Exposure, ids: Mapping[str, str], namespace: str) -> Exposure:
    items = tuple(ids.get(id, id) for id in exposure.items)
    return msgspec.structs.replace(exposure, items=items, namespace=namespace)


def _used_here(use: Feedback, ids: Mapping[str, str]) -> Feedback:
    return msgspec.structs.replace(use, item=ids.get(use.item, use.item))


def _related_here(relation: Relation, ids: Mapping[str, str]) -> Relation:
    source, target = ids.get(relation.source, relation.source), ids.get(relation.target, relation.target)
    return msgspec.structs.replace(relation, source=source, target=target)
