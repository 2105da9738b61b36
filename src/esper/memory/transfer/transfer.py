"""Export and import, as a memory's user calls them. Knows which format is whose."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, Literal

import msgspec

from esper.errors import TransferError
from esper.memory.records import Outcome
from esper.memory.stores.store import Store
from esper.memory.transfer import jsonl, openai, otel, rust
from esper.memory.transfer.exporting import lines_of
from esper.memory.transfer.importing import Importing, Loaded
from esper.memory.transfer.trace import BadLine, Reading, Sheet, sheet_of

Format = Literal["jsonl", "openai", "otel", "rust"]
_READERS: Final[dict[str, Callable[[Sheet], Reading]]] = {
    "openai": openai.read,
    "otel": otel.read,
    "rust": rust.read,
}
_TOLD: Final = 20


class Transfer:
    """``flush`` stores what is queued; it runs before anything is read."""

    def __init__(self, store: Store, namespace: str, importing: Importing, flush: Callable[[], None]) -> None:
        self._store = store
        self._namespace = namespace
        self._importing = importing
        self._flush = flush

    def export(self) -> Iterator[bytes]:
        """The facts of the namespace as JSON lines, each with its line break."""
        self._flush()
        for line in lines_of(self._store, self._namespace):
            yield msgspec.json.encode(line) + b"\n"

    def load(
        self,
        content: bytes,
        format: Format = "jsonl",
        *,
        unsaid: Outcome | None = None,
        skip_bad: bool = False,
    ) -> Loaded:
        """Take a file's content in, in one transaction, and learn from it. What is there already is passed over.

        ``unsaid`` is the outcome of traces that tell none; without it they are kept as abandoned.

        Raises:
            TransferError: lines cannot be read, and ``skip_bad`` was not given, or there is nothing; nothing is taken.
        """
        self._flush()
        sheet = sheet_of(content)
        if format == "jsonl":
            lines, bad = jsonl.read(sheet)
            _refuse(bad, skip_bad=skip_bad, empty=not lines)
            loaded = self._importing.lines(lines)
        else:
            reading = _READERS[format](sheet)
            bad = list(reading.bad)
            _refuse(bad, skip_bad=skip_bad, empty=not reading.traces)
            loaded = self._importing.traces(reading.traces, format, unsaid)
        return msgspec.structs.replace(loaded, bad=tuple(bad))


def _refuse(bad: list[BadLine], *, skip_bad: bool, empty: bool) -> None:
    if bad and not skip_bad:
        told = [f"line {one.number}: {one.message}" for one in bad[:_TOLD]]
        more = [f"and {len(bad) - _TOLD} more"] if len(bad) > _TOLD else []
        raise TransferError(
            "\n".join(["nothing was imported; mend these lines, or skip them:", *told, *more])
        )
    if empty:
        raise TransferError("nothing was imported: there is no trace of this format in the file")
