"""Looks through a whole namespace for what does not belong there. Knows the store by its Protocol."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Final, get_args

from esper.memory.hygiene.duplicates import fingerprint, repeated, same_words
from esper.memory.hygiene.finding import Finding, FindingKind
from esper.memory.hygiene.loops import loops
from esper.memory.hygiene.secrets import secrets_in_episode, secrets_in_item
from esper.memory.hygiene.stale import left_open, unused
from esper.memory.records import Episode, Item
from esper.memory.stores.store import Filter, Store

_PAGE: Final = 200
_ORDER: Final = get_args(FindingKind)


def audit(store: Store, namespace: str, now: int) -> list[Finding]:
    """Duplicates, stale records, loops and secrets, in this order; reads every record, changes none."""
    found: list[Finding] = []
    seen: dict[str, list[str]] = defaultdict(list)
    for episode in episodes_of(store, namespace):
        seen[fingerprint(episode)].append(episode.id)
        found += [*left_open(episode, now), *loops(episode), *secrets_in_episode(episode)]
    found += repeated(seen, "episode")
    notes: dict[str, list[str]] = defaultdict(list)
    for item in items_of(store, namespace):
        if item.kind == "note":
            notes[same_words(item)].append(item.id)
        found += [*unused(item, now), *secrets_in_item(item)]
    found += repeated(notes, "note")
    return sorted(found, key=lambda one: (_ORDER.index(one.kind), one.subject))


def episodes_of(store: Store, namespace: str) -> Iterator[Episode]:
    """All episodes of a namespace with their steps, newest first, a page at a time."""
    last: str | None = None
    filter = Filter(namespace=namespace)
    while page := store.episodes.find(filter, limit=_PAGE, before=last):
        last = page[-1].id
        yield from store.episodes.get([one.id for one in page]).values()


def items_of(store: Store, namespace: str) -> list[Item]:
    """All patterns and notes of a namespace, by trust."""
    filter = Filter(namespace=namespace, kinds=("pattern", "note", "heuristic", "playbook"))
    counts = store.counts(namespace)
    return store.items.find(filter, limit=counts["patterns"] + counts["notes"] + _PAGE)
