"""Patterns counted anew from what is left when an episode is forgotten. Knows the store by its Protocol."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from esper.memory.learning.course import Course
from esper.memory.learning.induce import MIN_EPISODES, observe
from esper.memory.learning.observation import worded
from esper.memory.learning.patterns import recounted, tried, words_of
from esper.memory.records import Item
from esper.memory.stores.store import Store


def relearn(store: Store, signatures: Sequence[int], *, min_episodes: int = MIN_EPISODES) -> None:
    """Count patterns anew from the evidence that is left, in the words of an episode that is left.

    Those without enough evidence are erased.
    """
    if not signatures:
        return
    patterns = store.items.signed(signatures)
    left = store.sightings.counts([*patterns])
    for signature, item in patterns.items():
        if left.get(signature, 0) < min_episodes or not _told_again(store, item, left[signature]):
            store.items.forget([item.id])


def _told_again(store: Store, item: Item, num_seen: int) -> bool:
    """Count a pattern and write it in the words of its latest evidence; false if that shows it no more."""
    assert item.signature is not None
    assert item.pattern is not None
    latest = store.sightings.evidence(item.signature, 1)[0].episode
    episode = store.episodes.get([latest])[latest]
    shown = observe(Course(episode), episode.outcome.reward if episode.outcome else 0.0).get(item.signature)
    if shown is None:
        return False
    one, seen = shown
    lesson = one.lesson(episode, item.pattern)
    if item.lesson.instead:
        lesson = msgspec.structs.replace(lesson, instead=item.lesson.instead)
        lesson = msgspec.structs.replace(
            lesson, text=worded(item.pattern, lesson, item.task_type, item.domain)
        )
    clean = 0
    if one.kind == "antipattern":
        sign = tried(episode, seen.first)
        clean = max(store.sightings.counts([sign]).get(sign, 0) - num_seen, 0)
    store.items.update({item.id: recounted(store, item, clean=clean)})
    store.items.rewrite(msgspec.structs.replace(item, lesson=lesson), words_of(episode, lesson.text))
    return True
