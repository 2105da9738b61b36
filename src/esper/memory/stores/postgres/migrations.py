"""Brings the tables to the present schema. Knows the numbered files beside it, not what is in them.

A migration is one transaction: it is there whole, or not at all. Backups are the server's own business (``pg_dump``).
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Final

from esper.errors import MemoryStoreError
from esper.memory.stores.postgres.connection import PostgresConnection

_LOCK: Final = f"SELECT pg_advisory_xact_lock({0x45535045})"
_MARK: Final = "memory_schema"
_THERE: Final = (
    f"SELECT relname FROM pg_class WHERE relname IN ('episode', 'item', '{_MARK}') "
    "AND relnamespace = current_schema()::regnamespace"
)
"""Looks into the catalogue itself: what ``to_regclass`` knows may be older than the lock."""
_ENCODING: Final = "SELECT pg_encoding_to_char(encoding) FROM pg_database WHERE datname = current_database()"


@cache
def scripts() -> tuple[str, ...]:
    """The migrations in order; that of version n stands at n - 1."""
    folder = files("esper.memory.stores.postgres") / "schema"
    named = sorted((entry.name, entry) for entry in folder.iterdir() if entry.name.endswith(".sql"))
    return tuple(entry.read_text(encoding="utf-8") for _, entry in named)


def migrate(connection: PostgresConnection) -> None:
    """Apply what is missing, in one transaction; several processes may try at once.

    Raises:
        MemoryStoreError: the tables are of a newer version or another program's, or the database is not in UTF-8.
    """
    encoding = (connection.row(_ENCODING) or ("",))[0]
    if encoding != "UTF8":
        raise MemoryStoreError(f"{connection.path}: its encoding is {encoding}; give a database in UTF8")
    if _version(connection) == len(scripts()):
        return
    with connection.transaction(lock=_LOCK):
        version = _version(connection)
        connection.script(f"CREATE TABLE IF NOT EXISTS {_MARK} (version BIGINT PRIMARY KEY)")
        for number, script in enumerate(scripts()[version:], start=version + 1):
            connection.script(script)
            connection.script(f"INSERT INTO {_MARK} VALUES ({number})")


def _version(connection: PostgresConnection) -> int:
    there = {name for (name,) in connection.rows(_THERE)}
    if _MARK not in there:
        if there:
            raise MemoryStoreError(f"{connection.path}: it holds another program's tables; give another one")
        return 0
    version = int((connection.row(f"SELECT coalesce(max(version), 0) FROM {_MARK}") or (0,))[0])
    if version > len(scripts()):
        raise MemoryStoreError(
            f"{connection.path}: its schema {version} is newer than {len(scripts())}; install a newer esper-grow"
        )
    return version
