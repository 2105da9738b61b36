"""The store in SQLite: opens the file. Does not know who asks."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from esper.errors import MemoryStoreError
from esper.memory.stores.sql.store import SqlStore
from esper.memory.stores.sqlite.connection import MEMORY, SqliteConnection
from esper.memory.stores.sqlite.migrations import migrate
from esper.memory.stores.sqlite.sightings import SqliteSightings
from esper.memory.stores.sqlite.words import SqliteWords

_SMALLEST_PAGE: Final = 512


class SqliteStore(SqlStore):
    """Fulfils ``Store`` in the file ``path``, or in ``":memory:"``. ``power`` waits for the disk at every commit.

    Raises:
        MemoryStoreError: the file cannot be opened, is not ours, or is newer than we are.
    """

    def __init__(self, path: Path | str, *, power: bool = False) -> None:
        name = str(path)
        if name != MEMORY:
            _make_folder(Path(name).parent)
            _refuse_a_stump(Path(name))
        self.connection = SqliteConnection(name, power=power)
        try:
            migrate(self.connection)
        except MemoryStoreError:
            self.connection.close()
            raise
        super().__init__(self.connection, SqliteWords(self.connection), SqliteSightings(self.connection))

    def check(self) -> list[str]:
        """What is wrong inside the database."""
        found = [row[0] for row in self.connection.rows("PRAGMA integrity_check") if row[0] != "ok"]
        return found + [f"{row[0]} row {row[1]}" for row in self.connection.rows("PRAGMA foreign_key_check")]

    def backup(self, target: Path) -> None:
        """Copy everything into a file, which appears only when it is complete."""
        self.connection.backup(target)

    def vacuum(self) -> None:
        """Give unused space back to the disk; words of what was forgotten leave the index, too."""
        for index in ("item_text", "sighted"):
            self.connection.write(f"INSERT INTO {index} ({index}) VALUES ('optimize')")
        self.connection.alone("VACUUM")
        self.connection.alone("PRAGMA wal_checkpoint(TRUNCATE)")

    def close(self) -> None:
        """Give the file back."""
        self.connection.close()


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MemoryStoreError(f"cannot make {folder}: {error.strerror}. Give another path.") from error


def _refuse_a_stump(path: Path) -> None:
    """SQLite takes what is shorter than its smallest page for an empty file, and would write over it."""
    if path.is_file() and 0 < path.stat().st_size < _SMALLEST_PAGE:
        raise MemoryStoreError(f"{path}: it is damaged, or not a SQLite database; restore a backup")
