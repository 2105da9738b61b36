"""The store in PostgreSQL: opens the database. Does not know who asks."""

from __future__ import annotations

from pathlib import Path

from esper.errors import EsperError, MemoryStoreError
from esper.memory.stores.postgres.connection import PostgresConnection
from esper.memory.stores.postgres.migrations import migrate
from esper.memory.stores.postgres.neighbours import PostgresNeighbours
from esper.memory.stores.postgres.sightings import PostgresSightings
from esper.memory.stores.postgres.words import PostgresWords
from esper.memory.stores.sql.store import SqlStore


class PostgresStore(SqlStore):
    """Fulfils ``Store`` in the database at ``url``, in the first schema of its ``search_path``.

    Texts hold no character 0 there: it becomes ``␀``. With ``power`` every commit waits for the server's disk. With
    ``pgvector`` the server compares vectors, slower than this process would, but they need not fit into it.

    Raises:
        MemoryStoreError: the server does not answer, the tables are not ours, or they are newer than we are.
    """

    def __init__(self, url: str, *, power: bool = False, pgvector: bool = False) -> None:
        self.connection = PostgresConnection(url, power=power)
        try:
            migrate(self.connection)
            neighbours = PostgresNeighbours(self.connection) if pgvector else None
        except EsperError:
            self.connection.close()
            raise
        super().__init__(self.connection, PostgresWords(self.connection), PostgresSightings(self.connection))
        self.neighbours = neighbours

    def check(self) -> list[str]:
        """What is wrong inside the database; that its pages are sound is the server's own business."""
        sql = "SELECT id FROM item WHERE key NOT IN (SELECT item FROM item_text) ORDER BY key"
        return [f"item {id} has no words" for (id,) in self.connection.rows(sql)]

    def backup(self, target: Path) -> None:
        """Is the server's own business.

        Raises:
            MemoryStoreError: always; it says what to do.
        """
        raise MemoryStoreError(f"{self.connection.path}: back it up with pg_dump --file={target}")

    def vacuum(self) -> None:
        """Give unused space back."""
        self.connection.script("VACUUM ANALYZE")

    def close(self) -> None:
        """Give the connections back."""
        self.connection.close()
