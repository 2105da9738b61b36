"""A SQLite file: one connection writes, others read meanwhile; errors in our words, backups. Knows no table."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import apsw

from esper.errors import EpisodeError, MemoryStoreError
from esper.memory.stores.sql.connection import Row

MEMORY: Final = ":memory:"
BUSY_MS: Final = 30_000
NUM_IDLE: Final = 8
_PAUSE_MS: Final = 10
_ERRORS: Final = (apsw.Error, UnicodeEncodeError)
PAGES: Final = 1_000
"""So many pages a backup copies at a time."""


class SqliteConnection:
    """Used by any number of threads. One at a time has the connection that writes; who finds it taken reads by another.

    ``path`` is a file or ``":memory:"``, where readers wait, too. With ``power`` every commit waits for the disk.
    """

    def __init__(self, path: str, *, power: bool = False) -> None:
        self.path = path
        self._lock = threading.RLock()
        self._depth = 0
        self._idle: list[apsw.Connection] = []
        self._closed = False
        self._transaction = _Transaction(self)
        try:
            self._sqlite = _opened(path)
            _write_ahead(self._sqlite)
            for pragma in _pragmas(power):
                self._sqlite.execute(f"PRAGMA {pragma}").fetchall()
        except apsw.Error as error:
            raise _told(path, error) from error

    def rows(self, sql: str, values: Sequence[Any] = ()) -> list[Row]:
        """Run one statement that reads, or one inside a transaction, and give all its rows."""
        if not self._lock.acquire(blocking=self.path == MEMORY):
            return self._rows_beside(sql, values)
        try:
            return self._sqlite.execute(sql, values).fetchall()
        except _ERRORS as error:
            raise _told(self.path, error) from error
        finally:
            self._lock.release()

    def row(self, sql: str, values: Sequence[Any] = ()) -> Row | None:
        """Run one statement that reads, or one inside a transaction, and give its first row."""
        return next(iter(self.rows(sql, values)), None)

    def alone(self, sql: str) -> None:
        """Run one statement that can stand in no transaction, after those of other threads."""
        with self._lock:
            self.rows(sql)

    def _rows_beside(self, sql: str, values: Sequence[Any]) -> list[Row]:
        """Read what was committed last, while another thread has the connection that writes."""
        reader = None
        try:
            reader = self._reader()
            return reader.execute(sql, values).fetchall()
        except _ERRORS as error:
            raise _told(self.path, error) from error
        finally:
            if reader is not None:
                self._put_back(reader)

    def _reader(self) -> apsw.Connection:
        with suppress(IndexError):
            return self._idle.pop()
        reader = _opened(self.path)
        for pragma in (*_pragmas(power=False), "query_only = ON"):
            reader.execute(f"PRAGMA {pragma}").fetchall()
        return reader

    def _put_back(self, reader: apsw.Connection) -> None:
        if self._closed or len(self._idle) >= NUM_IDLE:
            reader.close()
        else:
            self._idle.append(reader)

    def write(self, sql: str, values: Sequence[Any] = ()) -> int:
        """Run one statement inside a transaction; the number of rows it changed."""
        with self.transaction():
            try:
                self._sqlite.execute(sql, values)
            except _ERRORS as error:
                raise _told(self.path, error) from error
            return self._sqlite.changes()

    def write_many(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        """Run one statement for each row inside a transaction."""
        with self.transaction():
            try:
                self._sqlite.executemany(sql, rows)
            except _ERRORS as error:
                raise _told(self.path, error) from error

    def script(self, sql: str) -> None:
        """Run several statements inside a transaction."""
        self.write(sql)

    def transaction(self) -> AbstractContextManager[None]:
        """All or nothing; the outermost commits, and takes the write lock at once so that reads in it stay true."""
        return self._transaction

    def appending(self) -> AbstractContextManager[None]:
        """A transaction like any other: SQLite has one writer at a time."""
        return self._transaction

    def begin(self) -> None:
        """Go one level into the transaction; waits for other threads and processes."""
        self._lock.acquire()
        if not self._depth:
            try:
                self._sqlite.execute("BEGIN IMMEDIATE")
            except apsw.Error as error:
                self._lock.release()
                raise _told(self.path, error) from error
        self._depth += 1

    def end(self, *, commit: bool) -> None:
        """Come one level out; the outermost commits or rolls back."""
        self._depth -= 1
        try:
            if self._depth == 0:
                self._sqlite.execute("COMMIT" if commit else "ROLLBACK")
        except apsw.Error as error:
            if self._sqlite.in_transaction:
                self._sqlite.execute("ROLLBACK")
            raise _told(self.path, error) from error
        finally:
            self._lock.release()

    def backup(self, target: Path) -> None:
        """Copy the whole database into a file, which appears only when it is complete."""
        partial = target.with_name(target.name + ".partial")
        try:
            partial.unlink(missing_ok=True)
            self._copy_to(partial)
            partial.replace(target)
        except apsw.Error as error:
            raise _told(str(target), error) from error
        except OSError as error:
            raise MemoryStoreError(f"{target}: {error.strerror}; give another path") from error

    def _copy_to(self, target: Path) -> None:
        copy = apsw.Connection(str(target))
        try:
            copy.execute("PRAGMA synchronous = FULL").fetchall()
            with self._lock, copy.backup("main", self._sqlite, "main") as progress:
                while not progress.done:
                    progress.step(PAGES)
        finally:
            copy.close()

    def close(self) -> None:
        """Give the file back; a second call does nothing."""
        self._closed = True
        with self._lock:
            while self._idle:
                self._idle.pop().close()
            self._sqlite.close()


class _Transaction:
    def __init__(self, connection: SqliteConnection) -> None:
        self._connection = connection

    def __enter__(self) -> None:
        self._connection.begin()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.end(commit=kind is None)


def _opened(path: str) -> apsw.Connection:
    connection = apsw.Connection(path, statementcachesize=200)
    connection.set_busy_timeout(BUSY_MS)
    return connection


def _write_ahead(sqlite: apsw.Connection) -> None:
    """Turn WAL on. While another process does the same for a new file, SQLite says busy without waiting."""
    for wait in range(BUSY_MS // _PAUSE_MS):
        try:
            sqlite.execute("PRAGMA journal_mode = WAL").fetchall()
            return
        except apsw.BusyError:
            time.sleep(_PAUSE_MS / 1_000)
            if wait == BUSY_MS // _PAUSE_MS - 1:
                raise


def _pragmas(power: bool) -> tuple[str, ...]:
    return (
        f"synchronous = {'FULL' if power else 'NORMAL'}",
        "foreign_keys = ON",
        "secure_delete = ON",
        "temp_store = MEMORY",
        "wal_autocheckpoint = 4000",  # an episode touches a hundred pages, the next many of the same
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
    apsw.IOError: "the disk refuses; is it full, or gone? Nothing that was acknowledged is lost",
    apsw.ConnectionClosedError: "the memory is closed; open it again",
}


def _told(path: str, error: apsw.Error | UnicodeEncodeError) -> MemoryStoreError | EpisodeError:
    if isinstance(error, UnicodeEncodeError):
        return EpisodeError(f"{path}: not a valid text: {error}")
    if isinstance(error, apsw.ConstraintError):
        return EpisodeError(f"{path}: it is there already, or what it belongs to is gone ({error})")
    advice = next((text for kind, text in _ADVICE.items() if isinstance(error, kind)), str(error))
    return MemoryStoreError(f"{path}: {advice}")
