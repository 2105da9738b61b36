"""A pattern as an item: its words, its counts from the evidence, and what to do instead. Knows the store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from esper.memory.identity import new_id
from esper.memory.learning.choices import choice_signature
from esper.memory.learning.merge import begun, seen, used
from esper.memory.learning.observation import Observation, worded
from esper.memory.learning.trust import trust_of
from esper.memory.records import Episode, Item, PatternKind, Tally
from esper.memory.stores.store import Filter, SearchText, Store, Support

_MAX_EVIDENCE: Final = 1_000
_RIVALS: Final = 50
"""Of the place's kind of task the most trusted so many patterns are looked through."""


def towards(pattern: PatternKind | None, reward: float) -> float:
    """What a reward says for a pattern: evidence tells how it went, and a warning is right where it went badly."""
    return 1.0 - reward if pattern == "antipattern" else reward


def begin(store: Store, episode: Episode, one: Observation, pattern: PatternKind, support: Support) -> Item:
    """Write a new pattern with all that supports it; a warning and what to do instead learn of each other."""
    now = episode.ended or episode.started
    ill = support.seen - support.won
    counts = (ill, support.won) if pattern == "antipattern" else (support.won, ill)
    item = Item(
        id=new_id(now),
        kind="pattern",
        pattern=pattern,
        signature=one.signature,
        lesson=one.lesson(episode, pattern),
        namespace=episode.namespace,
        task_type=episode.task_type if one.scope else "",
        domain=episode.domain if one.scope else "",
        created=now,
        tally=begun(*counts, support.seen, now),
    )
    store.items.add([(item, words_of(episode, item.lesson.text))])
    if one.condition and pattern != "approach":
        _introduce(store, item, episode)
    return item


def _introduce(store: Store, item: Item, episode: Episode) -> None:
    if item.pattern != "antipattern" and not _rivals(store, item, ("antipattern",)):
        return
    rivals = _rivals(store, item, ("decision", "recovery", "antipattern"))
    warned = [one for one in (*rivals, item) if one.pattern == "antipattern" and not one.lesson.instead]
    hopeful = [one for one in (item, *rivals) if one.pattern != "antipattern" and _mean(one) > 0.5]
    for one in warned if hopeful else ():
        tell_instead(store, one, max(hopeful, key=_mean).lesson.actions, episode)


def _rivals(store: Store, item: Item, patterns: tuple[PatternKind, ...]) -> list[Item]:
    """Other patterns of the same place."""
    filter = Filter(
        namespace=item.namespace,
        task_type=item.task_type,
        domain=item.domain,
        kinds=("pattern",),
        patterns=patterns,
    )
    found = store.items.find(filter, limit=_RIVALS)
    return [one for one in found if one.lesson.condition == item.lesson.condition and one.id != item.id]


def _mean(item: Item) -> float:
    return trust_of(item.tally.successes, item.tally.failures).mean


def tell_instead(store: Store, item: Item, instead: Sequence[str], episode: Episode) -> None:
    """Add to a warning what to do, as an episode of its place shows."""
    lesson = msgspec.structs.replace(item.lesson, instead=tuple(instead))
    lesson = msgspec.structs.replace(lesson, text=worded("antipattern", lesson, item.task_type, item.domain))
    store.items.rewrite(msgspec.structs.replace(item, lesson=lesson), words_of(episode, lesson.text))


def with_evidence(store: Store, item: Item, *, clean: int = 0) -> Item:
    """The item with every sighting counted, and so many episodes that went well without one."""
    assert item.signature is not None
    tally = item.tally
    for evidence in store.sightings.evidence(item.signature, _MAX_EVIDENCE):
        tally = seen(tally, towards(item.pattern, evidence.reward), tally.touched)
    for _ in range(clean):
        tally = seen(tally, towards(item.pattern, 1.0), tally.touched)
    return msgspec.structs.replace(item, tally=tally)


def tried(episode: Episode, number: int) -> int:
    """The signature of the choice behind the deed of a step: seen wherever it was done, whether it worked or not."""
    step = next(step for step in episode.steps if step.number == number)
    return choice_signature(episode.namespace, step.action or step.tool)


def words_of(episode: Episode, text: str) -> SearchText:
    """The words by which a pattern is found."""
    return SearchText(title=text, context=context_words(episode), detail=episode.task)


def context_words(episode: Episode) -> str:
    """The situation and tags as words to search."""
    return " ".join([*map(str, episode.situation.values()), *episode.tags])


def recounted(store: Store, item: Item, *, clean: int = 0) -> Tally:
    """What an item counts by the evidence and the uses that are left."""
    before = item.tally
    bare = Tally(shown=before.shown, touched=before.touched)
    tally = with_evidence(store, msgspec.structs.replace(item, tally=bare), clean=clean).tally
    for told in store.exposures.rewards(item.id):
        tally = used(tally, told.reward or 0.0, tally.touched)
    return msgspec.structs.replace(tally, last_used=before.last_used)
