"""A store on one SQL database: puts its parts on a connection and a word index. Does not know who asks."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Final

from esper.memory.stores.sql.catalogue import SqlCatalogue
from esper.memory.stores.sql.connection import Connection, SightingIndex, WordIndex
from esper.memory.stores.sql.episodes import SqlEpisodes
from esper.memory.stores.sql.items import SqlItems
from esper.memory.stores.sql.sightings import SqlExposures, SqlSightings
from esper.memory.stores.store import Neighbours

_ERASED: Final = 1_000
_TOUCH: Final = (
    "INSERT INTO namespace VALUES (?, 1) ON CONFLICT (name) DO UPDATE SET version = namespace.version + 1 "
    "RETURNING version"
)
_COUNTED: Final = {
    "episodes": "SELECT count(*) FROM episode WHERE ? IN ('', namespace)",
    "open": "SELECT count(*) FROM episode WHERE ? IN ('', namespace) AND state = 'open'",
    "notes": "SELECT count(*) FROM item WHERE ? IN ('', namespace) AND kind = 'note'",
    "patterns": "SELECT count(*) FROM item WHERE ? IN ('', namespace) AND kind = 'pattern'",
    "retired": "SELECT count(*) FROM item WHERE ? IN ('', namespace) AND state = 'retired'",
    "exposures": "SELECT count(*) FROM exposure WHERE ? IN ('', namespace)",
}


class SqlStore:
    """All of ``Store`` but what each database does in its own way: opening, ``check``, backup, and closing."""

    def __init__(self, connection: Connection, index: WordIndex, sightings: SightingIndex) -> None:
        self._connection = connection
        self.neighbours: Neighbours | None = None
        self.episodes = SqlEpisodes(connection, index, sightings)
        self.items = SqlItems(connection, index)
        self.sightings = SqlSightings(connection, sightings)
        self.exposures = SqlExposures(connection)
        self.catalogue = SqlCatalogue(connection)

    def transaction(self) -> AbstractContextManager[None]:
        """All or nothing; may be nested."""
        return self._connection.transaction()

    def appending(self) -> AbstractContextManager[None]:
        """A transaction that only adds episodes and steps."""
        return self._connection.appending()

    def stamp(self, namespace: str | None) -> int:
        """Grows whenever what can be recalled from a namespace (``None``: any) changes."""
        if namespace is None:
            row = self._connection.row("SELECT coalesce(sum(version), 0) FROM namespace")
            return int(row[0]) if row else 0
        row = self._connection.row("SELECT version FROM namespace WHERE name = ?", (namespace,))
        return int(row[0]) if row else 0

    def touch(self, namespace: str) -> int:
        """Make the stamp of a namespace grow; what it is then."""
        with self.transaction():
            [(stamp,)] = self._connection.rows(_TOUCH, (namespace,))
        return int(stamp)

    def forget_namespace(self, namespace: str) -> int:
        """Erase everything in a namespace."""
        with self.transaction():
            ids = [
                row[0]
                for row in self._connection.rows("SELECT id FROM episode WHERE namespace = ?", (namespace,))
            ]
            items = [
                row[0]
                for row in self._connection.rows("SELECT id FROM item WHERE namespace = ?", (namespace,))
            ]
            for batch in range(0, len(ids), _ERASED):
                self.episodes.forget(ids[batch : batch + _ERASED])
            for batch in range(0, len(items), _ERASED):
                self.items.forget(items[batch : batch + _ERASED])
            for table in ("exposure", "habit"):
                self._connection.write(f"DELETE FROM {table} WHERE namespace = ?", (namespace,))
            self.touch(namespace)
        return len(ids)

    def counts(self, namespace: str | None = None) -> dict[str, int]:
        """How many records of each kind there are."""
        return {
            name: (self._connection.row(sql, (namespace or "",)) or (0,))[0] for name, sql in _COUNTED.items()
        }

    def namespaces(self) -> list[str]:
        """Every namespace that holds an episode or an item."""
        sql = "SELECT namespace FROM episode UNION SELECT namespace FROM item ORDER BY namespace"
        return [row[0] for row in self._connection.rows(sql)]
