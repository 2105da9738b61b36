"""Brings a database to the present schema, a backup first. Knows the numbered files beside it, not their tables."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Final

from esper.errors import MemoryStoreError
from esper.memory.stores.sqlite.connection import MEMORY, SqliteConnection

APPLICATION_ID: Final = 0x45535045
"""Marks a SQLite file as a memory of ours."""


@cache
def scripts() -> tuple[str, ...]:
    """The migrations in order; that of version n stands at n - 1."""
    folder = files("esper.memory.stores.sqlite") / "schema"
    named = sorted((entry.name, entry) for entry in folder.iterdir() if entry.name.endswith(".sql"))
    return tuple(entry.read_text(encoding="utf-8") for _, entry in named)


def migrate(connection: SqliteConnection) -> None:
    """Apply what is missing, in one transaction, after a copy to ``<file>.v<version>.backup`` (new files need none).

    Raises:
        MemoryStoreError: the file is of a newer version, or another program's database.
    """
    version = _version(connection)
    if version == len(scripts()):
        return
    if version and connection.path != MEMORY:
        connection.backup(Path(f"{connection.path}.v{version}.backup"))
    with connection.transaction():
        for number, script in enumerate(scripts()[_version(connection) :], start=version + 1):
            connection.script(script)
            connection.script(f"PRAGMA user_version = {number}; PRAGMA application_id = {APPLICATION_ID}")


def _version(connection: SqliteConnection) -> int:
    version = int((connection.row("PRAGMA user_version") or (0,))[0])
    owner = int((connection.row("PRAGMA application_id") or (0,))[0])
    foreign = owner != APPLICATION_ID and connection.row("SELECT 1 FROM sqlite_schema LIMIT 1")
    if foreign:
        raise MemoryStoreError(f"{connection.path}: it is another program's database; give another path")
    if version > len(scripts()):
        raise MemoryStoreError(
            f"{connection.path}: its schema {version} is newer than {len(scripts())}; install a newer esper-grow"
        )
    return version
