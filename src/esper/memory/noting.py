"""The words by which a note is found. Knows the store by its Protocol."""

from __future__ import annotations

from collections.abc import Sequence

from esper.memory.identity import day_of
from esper.memory.recall.ranking import NUM_NEARBY, nearby
from esper.memory.recall.words import date_words
from esper.memory.records import Item
from esper.memory.stores.store import SearchText, Store


def words_of_note(store: Store, note: Item, tags: Sequence[str]) -> SearchText:
    """Its own words, its context and tags, its day, and what was said just before in its thread."""
    told = note.lesson
    previous = store.items.thread(note.namespace, note.thread, NUM_NEARBY) if note.thread else []
    return SearchText(
        title=told.title,
        detail=told.text,
        context=" ".join([*map(str, told.context.values()), *tags, date_words(day_of(note.created))]),
        nearby=nearby([f"{one.lesson.title} {one.lesson.text}".strip() for one in previous]),
    )
