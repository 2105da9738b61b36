"""The memory as JSON lines: facts, from which everything that was learned can be learned again. Knows no store."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from esper.memory.records import Checkpoint, Episode, Exposure, Feedback, Item, Relation
from esper.memory.transfer.trace import BadLine, Sheet

VERSION: Final = 1


class Header(msgspec.Struct, frozen=True, tag="memory", tag_field="record"):
    """The first line: of which version the rest is."""

    version: int
    namespace: str = "default"
    format: Literal["esper-memory"] = "esper-memory"


class EpisodeLine(msgspec.Struct, frozen=True, tag="episode", tag_field="record"):
    """An episode with its steps; ``item`` is how it stands in the index, ``None`` while it is open."""

    episode: Episode
    item: Item | None = None


class NoteLine(msgspec.Struct, frozen=True, tag="note", tag_field="record"):
    """A note with its tags."""

    item: Item
    tags: tuple[str, ...] = ()


class PatternLine(msgspec.Struct, frozen=True, tag="pattern", tag_field="record"):
    """A pattern. It is learned again from the episodes; this line tells its trust, and the id that exposures name."""

    item: Item


class ExposureLine(msgspec.Struct, frozen=True, tag="exposure", tag_field="record"):
    """What was shown for a query, and what of it was used."""

    exposure: Exposure
    uses: tuple[Feedback, ...] = ()


class RelationLine(msgspec.Struct, frozen=True, tag="relation", tag_field="record"):
    """A relation."""

    relation: Relation


class CheckpointLine(msgspec.Struct, frozen=True, tag="checkpoint", tag_field="record"):
    """A checkpoint."""

    checkpoint: Checkpoint


Line = Header | EpisodeLine | NoteLine | PatternLine | ExposureLine | RelationLine | CheckpointLine


def read(sheet: Sheet) -> tuple[list[Line], list[BadLine]]:
    """The lines, in the order of the file, and those that are none."""
    lines: list[Line] = []
    bad = list(sheet.bad)
    for document in sheet.documents:
        try:
            line = msgspec.convert(document.value, Line)
            if isinstance(line, Header) and line.version > VERSION:
                raise ValueError(f"version {line.version} is newer than ours, {VERSION}: update Esper")
            lines.append(line)
        except ValueError as error:
            bad.append(BadLine(document.number, str(error)))
    return lines, sorted(bad, key=lambda one: one.number)
