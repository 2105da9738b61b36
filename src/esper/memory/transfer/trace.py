"""What a foreign trace is made of, and how a file falls into documents. Knows no format."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256
from typing import Any

import msgspec

from esper.memory.identity import new_id
from esper.memory.records import Outcome, Step, Value


class Trace(msgspec.Struct, frozen=True, kw_only=True):
    """One task that somebody recorded. ``key`` names it within its format; the same key is the same trace.

    Times are nanoseconds since the epoch, ``None`` where the trace has none; without an ``outcome`` it does not say how
    it ended.
    """

    key: str
    task: str
    task_type: str = ""
    domain: str = ""
    context: dict[str, Value] = {}
    tags: tuple[str, ...] = ()
    started: int | None = None
    ended: int | None = None
    steps: tuple[Step, ...] = ()
    outcome: Outcome | None = None

    def id(self, format: str) -> str:
        """The same for the same trace, so that it is imported once: an id of its start with bits of its key."""
        place = sha256(f"{format}\x1f{self.key}".encode("utf-8", "surrogatepass")).hexdigest()
        return f"{new_id(self.started or 0)[:15]}{place[:3]}-8{place[3:6]}-{place[6:18]}"


class BadLine(msgspec.Struct, frozen=True):
    """A line, from 1, that could not be read, and why. In a file that is one JSON array, lines are its elements."""

    number: int
    message: str


class Document(msgspec.Struct, frozen=True):
    """One JSON value and the line that it stands on."""

    number: int
    value: Any


class Sheet(msgspec.Struct, frozen=True):
    """What a file is made of."""

    documents: tuple[Document, ...]
    bad: tuple[BadLine, ...] = ()


class Reading(msgspec.Struct, frozen=True):
    """What a format made of a sheet."""

    traces: tuple[Trace, ...]
    bad: tuple[BadLine, ...] = ()


def sheet_of(content: bytes) -> Sheet:
    """The documents of a file: one JSON value, an array of them, or a line each."""
    try:
        whole = msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _lines(content.split(b"\n"))
    values = whole if isinstance(whole, list) and not _is_conversation(whole) else [whole]
    return Sheet(tuple(Document(number, value) for number, value in enumerate(values, start=1)))


def _is_conversation(values: Sequence[Any]) -> bool:
    return bool(values) and all(
        isinstance(value, dict) and ("role" in value or "type" in value) for value in values
    )


def _lines(lines: Iterable[bytes]) -> Sheet:
    documents, bad = [], []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            documents.append(Document(number, msgspec.json.decode(line)))
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            bad.append(BadLine(number, f"it is no JSON: {error}"))
    return Sheet(tuple(documents), tuple(bad))


def each(sheet: Sheet, read: Callable[[Any], Iterable[Trace]]) -> Reading:
    """Read every document by itself; one that raises ``ValueError`` is a bad line."""
    traces: list[Trace] = []
    bad = list(sheet.bad)
    for document in sheet.documents:
        try:
            traces += read(document.value)
        except ValueError as error:
            bad.append(BadLine(document.number, str(error)))
    return Reading(tuple(traces), tuple(sorted(bad, key=lambda one: one.number)))


def content_key(value: Any) -> str:
    """A key for a trace that has no name: its content."""
    return sha256(msgspec.json.encode(value, order="deterministic")).hexdigest()


def nanoseconds(seconds: float) -> int:
    """A time in nanoseconds."""
    return int(seconds * 1e9)
