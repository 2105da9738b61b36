"""Brings a database to the present schema, a backup first. Knows the numbered files beside it, not their tables.

A numbered file never changes once it was released: what comes next is a new number, and a database of each version
before it is opened by a test.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Final

from esper.errors import MemoryStoreError
from esper.memory.stores.sqlite.connection import MEMORY, SqliteConnection

APPLICATION_ID: Final = 0x45535045
"""Marks a SQLite file as a memory of ours."""
_WHOSE: Final = (
    "SELECT user_version, application_id, (SELECT count(*) FROM sqlite_schema) "
    "FROM pragma_user_version, pragma_application_id"
)
"""One statement, for another process may be making the tables."""


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
        version = _version(connection)  # another process may have been here meanwhile
        for number, script in enumerate(scripts()[version:], start=version + 1):
            connection.script(script)
            connection.script(f"PRAGMA user_version = {number}; PRAGMA application_id = {APPLICATION_ID}")


def _version(connection: SqliteConnection) -> int:
    version, owner, num_tables = connection.row(_WHOSE) or (0, 0, 0)
    if num_tables and owner != APPLICATION_ID:
        raise MemoryStoreError(f"{connection.path}: it is another program's database; give another path")
    if version > len(scripts()):
        raise MemoryStoreError(
            f"{connection.path}: its schema {version} is newer than {len(scripts())}; install a newer esper-grow"
        )
    return int(version)
