"""Records that hold what looks like a secret. Never tells the secret itself."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from esper.memory.hygiene.finding import Finding
from esper.memory.records import Episode, Item
from esper.memory.redaction import Redactor

_redact = Redactor()


def secrets_in_episode(episode: Episode) -> Iterator[Finding]:
    """One finding for an episode, which says where."""
    places = [f"step {step.number}" for step in episode.steps if _redact(step) != step]
    head = msgspec.structs.replace(episode, steps=())
    if _redact(head) != head:
        places.insert(0, "task, context or outcome")
    if places:
        yield Finding("secret", episode.id, f"{', '.join(places)}: delete it, and change the secret")


def secrets_in_item(item: Item) -> Iterator[Finding]:
    """One finding for an item."""
    if _redact(item) != item:
        yield Finding("secret", item.id, "what it says holds a secret: delete it, and change the secret")
