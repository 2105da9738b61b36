"""Records that say the same twice. Pure functions over records."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256

import msgspec

from esper.memory.hygiene.finding import Finding
from esper.memory.records import Episode, Item


def same_words(note: Item) -> str:
    """Equal for notes of the same words, whatever their case and spacing."""
    return " ".join(note.lesson.text.casefold().split())


def fingerprint(episode: Episode) -> str:
    """Equal for episodes of the same task that did the very same at the same times: recorded or imported twice.

    The same task tried again is no duplicate: that is how a memory learns.
    """
    told = (episode.task, episode.started, episode.steps)
    return sha256(msgspec.msgpack.encode(told, order="deterministic")).hexdigest()


def repeated(same: Mapping[str, Sequence[str]], what: str) -> Iterator[Finding]:
    """A finding for each group of several ids; the oldest one is the original."""
    for ids in same.values():
        first, *others = sorted(ids)
        if others:
            message = f"the same {what} {len(ids)} times: delete all but one"
            yield Finding("duplicate", first, message, tuple(others))
