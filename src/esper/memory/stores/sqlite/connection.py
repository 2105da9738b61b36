"""One SQLite connection: transactions, errors in our words, backups. Knows no table."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import apsw

from esper.errors import MemoryStoreError

MEMORY: Final = ":memory:"
BUSY_MS: Final = 30_000

Row = tuple[Any, ...]


class Connection:
    """Used by one thread at a time (it holds a lock); a file may be held by many connections and processes.

    ``path`` is a file or ``":memory:"``. With ``power`` every commit waits for the disk.
    """

    def __init__(self, path: str, *, power: bool = False) -> None:
        self.path = path
        self._lock = threading.RLock()
        self._depth = 0
        with _told(path):
            self._sqlite = apsw.Connection(path, statementcachesize=200)
            self._sqlite.set_busy_timeout(BUSY_MS)
            for pragma in _pragmas(power):
                self._sqlite.execute(f"PRAGMA {pragma}").fetchall()

    def rows(self, sql: str, values: Sequence[Any] = ()) -> list[Row]:
        """Run one statement and give all its rows."""
        with self._lock, _told(self.path):
            return self._sqlite.execute(sql, values).fetchall()

    def row(self, sql: str, values: Sequence[Any] = ()) -> Row | None:
        """Run one statement and give its first row."""
        with self._lock, _told(self.path):
            return self._sqlite.execute(sql, values).fetchone()

    def write(self, sql: str, values: Sequence[Any] = ()) -> int:
        """Run one statement inside a transaction; the number of rows it changed."""
        with self.transaction(), _told(self.path):
            self._sqlite.execute(sql, values)
            return self._sqlite.changes()

    def write_many(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        """Run one statement for each row inside a transaction."""
        with self.transaction(), _told(self.path):
            self._sqlite.executemany(sql, rows)

    def script(self, sql: str) -> None:
        """Run several statements."""
        with self.transaction(), _told(self.path):
            self._sqlite.execute(sql)

    @property
    def last_key(self) -> int:
        """The row key of the last insert; ask inside its transaction."""
        return self._sqlite.last_insert_rowid()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing; the outermost commits, and takes the write lock at once so that reads in it stay true."""
        with self._lock:
            if self._depth:
                yield
                return
            with _told(self.path):
                self._sqlite.execute("BEGIN IMMEDIATE")
            self._depth = 1
            done = False
            try:
                yield
                with _told(self.path):
                    self._sqlite.execute("COMMIT")
                done = True
            finally:
                self._depth = 0
                if not done and self._sqlite.in_transaction:
                    self._sqlite.execute("ROLLBACK")

    def backup(self, target: Path) -> None:
        """Copy the whole database into a file, which appears only when it is complete."""
        partial = target.with_name(target.name + ".partial")
        partial.unlink(missing_ok=True)
        with self._lock, _told(str(target)):
            copy = apsw.Connection(str(partial))
            with copy.backup("main", self._sqlite, "main") as progress:
                while not progress.done:
                    progress.step(1_000)
            copy.close()
        partial.replace(target)

    def close(self) -> None:
        """Give the file back; a second call does nothing."""
        with self._lock, _told(self.path):
            self._sqlite.close()


def _pragmas(power: bool) -> tuple[str, ...]:
    return (
        "journal_mode = WAL",
        f"synchronous = {'FULL' if power else 'NORMAL'}",
        "foreign_keys = ON",
        "temp_store = MEMORY",
        "mmap_size = 268435456",
        "cache_size = -32768",
    )


_ADVICE: dict[type[apsw.Error], str] = {
    apsw.BusyError: "another process holds it for writing; try again",
    apsw.FullError: "the disk is full; make room, nothing that was acknowledged is lost",
    apsw.ReadOnlyError: "it may only be read; give write permission to the file and its folder",
    apsw.NotADBError: "it is not a SQLite database; give another path",
    apsw.CorruptError: "it is damaged; restore a backup",
    apsw.CantOpenError: "it cannot be opened; does the folder exist, and may you write there?",
    apsw.ConnectionClosedError: "the memory is closed; open it again",
}


@contextmanager
def _told(path: str) -> Iterator[None]:
    try:
        yield
    except apsw.Error as error:
        advice = next((text for kind, text in _ADVICE.items() if isinstance(error, kind)), str(error))
        raise MemoryStoreError(f"{path}: {advice}") from error
