"""Connections to one PostgreSQL database: transactions, several threads, errors in our words. Knows no table but one.

A thread borrows a connection for each statement, or for the whole of a transaction. Several writers append at once; a
transaction that reads before it writes has the memory to itself, so that what it read stays true.
"""

from __future__ import annotations

import select
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from typing import Any, Final

import psycopg
from psycopg import errors
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import TransactionStatus

from esper.errors import EpisodeError, MemoryStoreError
from esper.memory.stores.sql.connection import Row

CONNECT_SECONDS: Final = 10
LOCK_SECONDS: Final = 30
NUM_IDLE: Final = 8
NUL: Final = "\N{SYMBOL FOR NULL}"
"""Stands for the character 0, which no text in PostgreSQL may hold."""
_SETTINGS: Final = (
    "SET lock_timeout = '{seconds}s'; SET synchronous_commit = {commit}; SET client_min_messages = warning"
)
_LOCK: Final = "SELECT pg_advisory_xact_lock{kind}('episode'::regclass::oid::bigint)"

Server = psycopg.Connection[Row]


class PostgresConnection:
    """Used by any number of threads. With ``power`` every commit waits for the server's disk.

    Without it a commit survives whatever becomes of this process, but the server's own fall may take the last
    half second along.

    Raises:
        MemoryStoreError: nobody answers at ``url``, or does not let us in.
    """

    def __init__(self, url: str, *, power: bool = False) -> None:
        self.path = _shown(url)
        self._url = url
        self._settings = _SETTINGS.format(seconds=LOCK_SECONDS, commit="on" if power else "off")
        self._idle: list[Server] = []
        self._lock = threading.Lock()
        self._mine = _Held()
        self._closed = False
        with self._borrowed():
            pass

    def rows(self, sql: str, values: Sequence[Any] = ()) -> list[Row]:
        """Run one statement and give all its rows."""
        with self._borrowed() as server:
            return server.execute(_marked(sql), _plain(values)).fetchall()

    def row(self, sql: str, values: Sequence[Any] = ()) -> Row | None:
        """Run one statement and give its first row."""
        with self._borrowed() as server:
            return server.execute(_marked(sql), _plain(values)).fetchone()

    def write(self, sql: str, values: Sequence[Any] = ()) -> int:
        """Run one statement inside a transaction; the number of rows it changed."""
        with self.transaction(), self._borrowed() as server:
            return server.execute(_marked(sql), _plain(values)).rowcount

    def write_many(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        """Run one statement for each row inside a transaction."""
        with self.transaction(), self._borrowed() as server:
            server.cursor().executemany(_marked(sql), map(_plain, rows))

    def script(self, sql: str) -> None:
        """Run several statements, without values, as one; outside a transaction they are one of their own."""
        with self._borrowed() as server:
            server.execute(sql)

    def transaction(self, *, lock: str = _LOCK.format(kind="")) -> AbstractContextManager[None]:
        """All or nothing, and no other writer meanwhile; the outermost commits. ``lock`` keeps the others out."""
        return self._inside(lock)

    def appending(self) -> AbstractContextManager[None]:
        """A transaction beside which others may append, but nobody may do anything else."""
        return self._inside(_LOCK.format(kind="_shared"))

    @contextmanager
    def _inside(self, lock: str) -> Iterator[None]:
        if self._mine.server is not None:
            yield
            return
        with self._borrowed() as server:
            self._mine.server = server
            try:
                server.execute(f"BEGIN; {lock}")
                yield
                _commit(server)
            finally:
                self._mine.server = None

    @contextmanager
    def _borrowed(self) -> Iterator[Server]:
        held = self._mine.server
        server = None
        try:
            server = held or self._take()
            yield server
        except UnicodeEncodeError as error:
            raise EpisodeError(f"{self.path}: not a valid text: {error}") from error
        except psycopg.Error as error:
            raise _told(self.path, error) from error
        finally:
            if held is None and server is not None:
                self._give_back(server)

    def _take(self) -> Server:
        while True:
            with self._lock:
                if self._closed:
                    raise MemoryStoreError(f"{self.path}: the memory is closed; open it again")
                if not self._idle:
                    break
                server = self._idle.pop()
            if _alive(server):
                return server
            server.close()
        return self._connected()

    def _connected(self) -> Server:
        server = psycopg.connect(
            make_conninfo(self._url, client_encoding="utf8", application_name="esper"), autocommit=True
        )
        server.execute(self._settings)
        return server

    def _give_back(self, server: Server) -> None:
        if server.info.transaction_status not in (TransactionStatus.IDLE, TransactionStatus.UNKNOWN):
            try:
                server.execute("ROLLBACK")
            except psycopg.Error:
                server.close()
        with self._lock:
            kept = not self._closed and not server.closed and len(self._idle) < NUM_IDLE
            if kept:
                self._idle.append(server)
        if not kept:
            server.close()

    def close(self) -> None:
        """Give the connections back; a second call does nothing."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for server in idle:
            server.close()


class _Held(threading.local):
    server: Server | None = None


def _commit(server: Server) -> None:
    """PostgreSQL would answer a commit after an error with a silent rollback."""
    if server.info.transaction_status == TransactionStatus.INERROR:
        raise errors.InFailedSqlTransaction("a statement failed before")
    server.execute("COMMIT")


def _alive(server: Server) -> bool:
    """An idle connection has nothing to read, unless its end has come."""
    return not server.closed and not select.select([server.fileno()], [], [], 0)[0]


@cache
def _marked(sql: str) -> str:
    return sql.replace("%", "%%").replace("?", "%s")


def _plain(values: Sequence[Any]) -> list[Any]:
    return [
        value.replace("\0", NUL) if isinstance(value, str) and "\0" in value else value for value in values
    ]


def _shown(url: str) -> str:
    """Where that is, without user and password."""
    try:
        told = conninfo_to_dict(url)
    except psycopg.Error as error:
        raise MemoryStoreError(f"not a PostgreSQL URL: {error}") from error
    return f"postgresql://{told.get('host', '')}/{told.get('dbname', '')}"


_ADVICE: dict[type[psycopg.Error], str] = {
    errors.DiskFull: "the server's disk is full; make room, nothing that was acknowledged is lost",
    errors.ReadOnlySqlTransaction: "it may only be read; give another server or user",
    errors.InsufficientPrivilege: "this user may not do that; grant it, or give another user",
    errors.LockNotAvailable: "another process holds it for writing; try again",
    errors.DeadlockDetected: "two writers waited for each other; try again",
    errors.ProgramLimitExceeded: "a namespace, task type, domain, thread, tag or id is too long for an index",
    errors.InFailedSqlTransaction: "an error inside the transaction was passed over; nothing was stored",
}


def _told(path: str, error: psycopg.Error) -> MemoryStoreError | EpisodeError:
    if isinstance(error, psycopg.IntegrityError):
        return EpisodeError(f"{path}: it is there already, or what it belongs to is gone ({error})")
    advice = next((text for kind, text in _ADVICE.items() if isinstance(error, kind)), str(error).strip())
    return MemoryStoreError(f"{path}: {advice}")
