"""Which memory a command means, and what its arguments say. Knows no command."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import msgspec

from esper.apps.terminal import BadParameter, Context, Option, confirm
from esper.errors import ConfigurationError
from esper.memory.journal import Options
from esper.memory.memory import Memory
from esper.memory.metrics import Span
from esper.memory.recall.named import embedder_named
from esper.memory.records import Value
from esper.memory.stores.store import Filter
from esper.settings import Settings

STDIN = "-"
_OWN_OPTIONS = frozenset({"task", "task_type", "domain", "namespace", "tags", "text", "title", "thread"})
_SHORT = 4
_LATEST = 500
_ID = 36

Json = Annotated[bool, Option("--json", help="print JSON, for programs")]
Count = Annotated[int, Option("--limit", "-n", help="at most so many", min=1)]
TaskType = Annotated[str, Option("--type", help="kind of task, for instance bugfix")]
Domain = Annotated[str, Option(help="for instance web, ci, billing")]
Tags = Annotated[list[str] | None, Option("--tag", help="may be given again")]
AllTags = Annotated[list[str] | None, Option("--tag", help="may be given again: what has all of them")]
AnyTags = Annotated[list[str] | None, Option("--any-tag", help="may be given again: what has one of them")]
Features = Annotated[
    list[str] | None,
    Option("--context", "-c", metavar="NAME=VALUE", help="a feature of the situation; may be given again"),
]
Yes = Annotated[bool, Option("--yes", "-y", help="do not ask")]


class Place(msgspec.Struct, frozen=True):
    """Where the memory is, as the command line said it."""

    location: str | None
    namespace: str
    embedder: str | None = None
    trace: Path | None = None

    def options(self) -> Options:
        """What the memory is opened with: a line of JSON in the file for each thing that is done, if that was asked."""
        return Options(trace=_writing(self.trace)) if self.trace else Options()


def _writing(file: Path) -> Callable[[Span], None]:
    try:
        file.open("ab").close()
    except OSError as error:
        raise ConfigurationError(f"cannot write {file}: {error.strerror}; give another --trace") from error

    def write(trace: Span) -> None:
        with suppress(OSError), file.open("ab") as lines:  # a full disk must not undo what was stored
            lines.write(msgspec.json.encode(trace) + b"\n")

    return write


def opened(context: Context) -> Memory:
    """The memory that ``--at`` and ``--namespace`` name; use it in a ``with`` block."""
    place = context.find_object(Place)
    assert place is not None, "the group sets it before any command runs"
    return Memory(place.location, namespace=place.namespace, options=place.options())


def opened_for_recall(context: Context) -> Memory:
    """The same memory with the embedder that ``--embedder`` or ``ESPER_MEMORY_EMBEDDER`` names, if any."""
    place = context.find_object(Place)
    assert place is not None, "the group sets it before any command runs"
    settings = Settings()
    word = place.embedder or settings.memory_embedder
    key = settings.memory_embedder_key
    embedder = embedder_named(word, key=key.get_secret_value() if key else None) if word else None
    return Memory(place.location, namespace=place.namespace, options=place.options(), embedder=embedder)


def told(text: str) -> str:
    """The text, or standard input where it is ``-``."""
    return sys.stdin.read().strip() if text == STDIN else text


def features(pairs: Iterable[str] | None) -> dict[str, Value]:
    """``name=value`` pairs; a value that reads as a number or a truth value is one."""
    found: dict[str, Value] = {}
    for pair in pairs or ():
        name, sign, value = pair.partition("=")
        if not (name and sign):
            raise BadParameter(f"{pair!r} is no NAME=VALUE")
        if name in _OWN_OPTIONS:
            raise BadParameter(
                f"{name} is not part of the context: it has an option, or is the command's own"
            )
        found[name] = _value(value)
    return found


def _value(text: str) -> Value:
    try:
        value = msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text
    return value if isinstance(value, bool | int | float) else text


def episode_id(memory: Memory, word: str) -> str:
    """The id that ``latest``, ``open`` (the latest open one), an id or the end of a recent id means."""
    if word == "latest":
        return _only(memory, Filter(namespace=memory.namespace), word)
    if word == "open":
        return _only(memory, Filter(namespace=memory.namespace, state="open"), word)
    if not _SHORT <= len(word) < _ID:
        return word
    ids = [episode.id for episode in memory.episodes(limit=_LATEST)]
    ends = [id for id in ids if id.endswith(word)]
    if len(ends) > 1:
        raise BadParameter(f"several episodes end in {word}: {', '.join(ends)}")
    return ends[0] if ends else word


def _only(memory: Memory, filter: Filter, word: str) -> str:
    found = memory.episodes(filter, limit=1)
    if not found:
        raise BadParameter(f"there is no {word} episode in namespace {memory.namespace!r}")
    return found[0].id


def make_sure(question: str, *, yes: bool) -> None:
    """Ask before something is lost; where nobody can be asked, ``--yes`` must be given."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise BadParameter("this erases; give --yes to do it without a question")
    confirm(question, abort=True)
