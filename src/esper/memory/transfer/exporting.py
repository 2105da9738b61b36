"""Reads a namespace out, line by line. Knows the store by its Protocol."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Final

from esper.memory.records import Episode, Item
from esper.memory.stores.store import Filter, Store
from esper.memory.transfer.jsonl import (
    VERSION,
    CheckpointLine,
    EpisodeLine,
    ExposureLine,
    Header,
    Line,
    NoteLine,
    PatternLine,
    RelationLine,
)

_PAGE: Final = 200


def lines_of(store: Store, namespace: str) -> Iterator[Line]:
    """All facts of a namespace, in an order in which they can be read in again: episodes by their end."""
    yield Header(version=VERSION, namespace=namespace)
    notes = _items(store, namespace, "note")
    tags = _tags(store, namespace)
    yield from (NoteLine(item, tuple(tags[item.id])) for item in notes)
    ids = _by_end(store, namespace)
    for start in range(0, len(ids), _PAGE):
        page = ids[start : start + _PAGE]
        items = store.items.get(page)
        for episode in store.episodes.get(page).values():
            yield EpisodeLine(episode, items.get(episode.id))
    patterns = _items(store, namespace, "pattern")
    yield from (PatternLine(item) for item in patterns)
    yield from _exposures(store, namespace)
    for id in [*ids, *(item.id for item in notes), *(item.id for item in patterns)]:
        yield from (RelationLine(one) for one in store.catalogue.relations(id, direction="from"))
    for id in ids:
        yield from (CheckpointLine(one) for one in store.catalogue.checkpoints(id))


def _items(store: Store, namespace: str, kind: str) -> list[Item]:
    """Oldest first."""
    number = store.counts(namespace)[f"{kind}s"]
    filter = Filter(namespace=namespace, kinds=("note",) if kind == "note" else ("pattern",))
    return sorted(store.items.find(filter, limit=number + 1), key=lambda one: (one.created, one.id))


def _tags(store: Store, namespace: str) -> dict[str, list[str]]:
    """The tags of each note."""
    found: dict[str, list[str]] = defaultdict(list)
    for name, number in sorted(store.catalogue.tags().items()):
        filter = Filter(namespace=namespace, kinds=("note",), any_tags=(name,))
        for item in store.items.find(filter, limit=number):
            found[item.id].append(name)
    return found


def _by_end(store: Store, namespace: str) -> list[str]:
    heads: list[Episode] = []
    while page := store.episodes.find(
        Filter(namespace=namespace), limit=_PAGE, before=heads[-1].id if heads else None
    ):
        heads += page
    ordered = sorted(heads, key=lambda one: (one.ended is None, one.ended or one.started, one.id))
    return [one.id for one in ordered]


def _exposures(store: Store, namespace: str) -> Iterator[ExposureLine]:
    last = ""
    while page := store.exposures.find(namespace, after=last, limit=_PAGE):
        last = page[-1].id
        yield from (ExposureLine(one, tuple(store.exposures.uses(one.id))) for one in page)
