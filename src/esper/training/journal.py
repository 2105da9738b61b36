"""A file of JSON lines that only grows, and can be cut back to a place where it stood before."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Self, TypeVar

import msgspec

from esper.errors import RunError

T = TypeVar("T")


class Journal:
    """Appends one JSON value a line.

    ``flush`` makes all lines so far survive a kill, and says where they end.
    """

    def __init__(self, path: Path, *, size: int = 0) -> None:
        """Open ``path`` and cut it back to its first ``size`` bytes."""
        self._path = path
        self._encoder = msgspec.json.Encoder()
        try:
            self._file = path.open("ab")
            self._file.truncate(size)
        except OSError as error:
            raise RunError(f"cannot write {path}: {error.strerror}") from error

    def append(self, value: msgspec.Struct) -> None:
        """Add one line; it may stay in memory until ``flush``."""
        self._file.write(self._encoder.encode(value) + b"\n")

    def flush(self) -> int:
        """Bring every line to the disk; the size of the file in bytes.

        Raises ``RunError`` when the disk refuses.
        """
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
            return self._path.stat().st_size
        except OSError as error:
            raise RunError(f"cannot write {self._path}: {error.strerror}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._file.close()


def read_lines(path: Path, kind: type[T]) -> Iterator[T]:
    """Every whole line of a journal as ``kind``; nothing when there is no file.

    Raises ``RunError`` at a damaged one.
    """
    if not path.exists():
        return
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):  # a writer was killed, or is just writing
                return
            try:
                yield msgspec.json.decode(line, type=kind)
            except msgspec.DecodeError as error:
                raise RunError(f"{path}, line {number} is damaged: {error}") from error
