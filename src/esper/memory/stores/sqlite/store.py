"""The store in SQLite: puts its parts on one connection. Does not know who asks."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

from esper.errors import MemoryStoreError
from esper.memory.stores.sqlite.catalogue import SqliteCatalogue
from esper.memory.stores.sqlite.connection import MEMORY, Connection
from esper.memory.stores.sqlite.episodes import SqliteEpisodes
from esper.memory.stores.sqlite.items import SqliteItems
from esper.memory.stores.sqlite.migrations import migrate
from esper.memory.stores.sqlite.sightings import SqliteExposures, SqliteSightings

_ERASED: Final = 1_000
_COUNTED: Final = {
    "episodes": "SELECT count(*) FROM episode WHERE ? IN ('', namespace)",
    "open": "SELECT count(*) FROM episode WHERE ? IN ('', namespace) AND state = 'open'",
    "notes": "SELECT count(*) FROM item WHERE ? IN ('', namespace) AND kind = 'note'",
    "patterns": "SELECT count(*) FROM item WHERE ? IN ('', namespace) AND kind = 'pattern'",
    "retired": "SELECT count(*) FROM item WHERE ? IN ('', namespace) AND state = 'retired'",
    "exposures": "SELECT count(*) FROM exposure WHERE ? IN ('', namespace)",
}


class SqliteStore:
    """Fulfils ``Store`` in the file ``path``, or in ``":memory:"``. ``power`` waits for the disk at every commit.

    Raises:
        MemoryStoreError: the file cannot be opened, is not ours, or is newer than we are.
    """

    def __init__(self, path: Path | str, *, power: bool = False) -> None:
        name = str(path)
        if name != MEMORY:
            _make_folder(Path(name).parent)
        self.connection = Connection(name, power=power)
        try:
            migrate(self.connection)
        except MemoryStoreError:
            self.connection.close()
            raise
        self.episodes = SqliteEpisodes(self.connection)
        self.items = SqliteItems(self.connection)
        self.sightings = SqliteSightings(self.connection)
        self.exposures = SqliteExposures(self.connection)
        self.catalogue = SqliteCatalogue(self.connection)

    def transaction(self) -> AbstractContextManager[None]:
        """All or nothing; may be nested."""
        return self.connection.transaction()

    def stamp(self, namespace: str | None) -> int:
        """Grows whenever what can be recalled from a namespace (``None``: any) changes."""
        if namespace is None:
            row = self.connection.row("SELECT coalesce(sum(version), 0) FROM namespace")
            return row[0] if row else 0
        row = self.connection.row("SELECT version FROM namespace WHERE name = ?", (namespace,))
        return row[0] if row else 0

    def touch(self, namespace: str) -> None:
        """Make the stamp of a namespace grow."""
        self.connection.write(
            "INSERT INTO namespace VALUES (?, 1) ON CONFLICT (name) DO UPDATE SET version = version + 1",
            (namespace,),
        )

    def forget_namespace(self, namespace: str) -> int:
        """Erase everything in a namespace."""
        with self.transaction():
            ids = [
                row[0]
                for row in self.connection.rows("SELECT id FROM episode WHERE namespace = ?", (namespace,))
            ]
            items = [
                row[0]
                for row in self.connection.rows("SELECT id FROM item WHERE namespace = ?", (namespace,))
            ]
            for batch in range(0, len(ids), _ERASED):
                self.episodes.forget(ids[batch : batch + _ERASED])
            for batch in range(0, len(items), _ERASED):
                self.items.forget(items[batch : batch + _ERASED])
            self.connection.write("DELETE FROM exposure WHERE namespace = ?", (namespace,))
            self.touch(namespace)
        return len(ids)

    def counts(self, namespace: str | None = None) -> dict[str, int]:
        """How many records of each kind there are."""
        return {
            name: (self.connection.row(sql, (namespace or "",)) or (0,))[0] for name, sql in _COUNTED.items()
        }

    def check(self) -> list[str]:
        """What is wrong inside the database."""
        found = [row[0] for row in self.connection.rows("PRAGMA integrity_check") if row[0] != "ok"]
        return found + [f"{row[0]} row {row[1]}" for row in self.connection.rows("PRAGMA foreign_key_check")]

    def backup(self, target: Path) -> None:
        """Copy everything into a file, which appears only when it is complete."""
        self.connection.backup(target)

    def vacuum(self) -> None:
        """Give unused space back to the disk."""
        self.connection.rows("VACUUM")

    def close(self) -> None:
        """Give the file back."""
        self.connection.close()


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MemoryStoreError(f"cannot make {folder}: {error.strerror}. Give another path.") from error
