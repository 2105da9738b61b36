"""Nearest vectors by pgvector, on the server. Does not know what vectors mean."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Final

from esper.errors import MemoryStoreError
from esper.memory.stores.postgres.connection import PostgresConnection
from esper.memory.stores.sql.connection import Row
from esper.memory.stores.sql.where import marks

_AVAILABLE: Final = "SELECT 1 FROM pg_available_extensions WHERE name = 'vector'"
_WHERE: Final = (
    "SELECT quote_ident(nspname) FROM pg_extension JOIN pg_namespace ON pg_namespace.oid = extnamespace "
    "WHERE extname = 'vector'"
)
_TABLE: Final = """
CREATE TABLE IF NOT EXISTS neighbour (
    item BIGINT PRIMARY KEY REFERENCES embedding (item) ON DELETE CASCADE,
    model TEXT NOT NULL,
    place {schema}.vector NOT NULL
)
"""
_NEW: Final = (
    "SELECT item, vector FROM embedding WHERE model = ? AND item > ? AND NOT EXISTS "
    "(SELECT 1 FROM neighbour WHERE neighbour.item = embedding.item AND neighbour.model = embedding.model) "
    "ORDER BY item LIMIT ?"
)
_LAST: Final = "SELECT coalesce(max(item), 0) FROM embedding WHERE model = ?"
_PUT: Final = (
    "INSERT INTO neighbour VALUES (?, ?, ?::{schema}.vector) "
    "ON CONFLICT (item) DO UPDATE SET model = excluded.model, place = excluded.place"
)
_COSINES: Final = (
    "SELECT id, 1 - distance FROM (SELECT id, place OPERATOR({schema}.<=>) ?::{schema}.vector AS distance "
    "FROM neighbour JOIN item ON item.key = neighbour.item WHERE model = ? AND {where}) AS told "
    "ORDER BY distance, id LIMIT ?"
)
_PAGE: Final = 1_000


class PostgresNeighbours:
    """Fulfils ``Neighbours``, exactly, vector by vector.

    Raises:
        MemoryStoreError: the server has no pgvector, or this user may not create the extension.
    """

    def __init__(self, connection: PostgresConnection) -> None:
        self._connection = connection
        if connection.row(_AVAILABLE) is None:
            raise MemoryStoreError(
                f"{connection.path}: the server has no pgvector; install it there, or give postgresql:// "
                "to search in this process"
            )
        with connection.transaction():
            connection.script("CREATE EXTENSION IF NOT EXISTS vector")
            (self._schema,) = connection.row(_WHERE) or ("",)
            connection.script(_TABLE.format(schema=self._schema))

    def take_in(self, model: str, after: int) -> int:
        """Index embeddings that are new behind a place, by whatever process; the place of the last."""
        while page := self._connection.rows(_NEW, (model, after, _PAGE)):
            rows = [(item, model, _told(vector)) for item, vector in page]
            self._connection.write_many(_PUT.format(schema=self._schema), rows)
            after = page[-1][0]
        return int((self._connection.row(_LAST, (model,)) or (0,))[0])

    def nearest(self, model: str, vector: bytes, namespace: str | None, k: int) -> dict[str, float]:
        """The largest cosines."""
        where = "TRUE" if namespace is None else "namespace = ?"
        return self._cosines(model, vector, where, () if namespace is None else (namespace,), k)

    def cosines(self, model: str, vector: bytes, ids: Sequence[str]) -> dict[str, float]:
        """Cosines of those of these items that have a vector."""
        return self._cosines(model, vector, f"id IN ({marks(ids)})", ids, len(ids))

    def _cosines(
        self, model: str, vector: bytes, where: str, values: Row | Sequence[str], k: int
    ) -> dict[str, float]:
        sql = _COSINES.format(schema=self._schema, where=where)
        return dict(self._connection.rows(sql, (_told(vector), model, *values, k)))


def _told(vector: bytes) -> str:
    """As pgvector reads it. The bytes are little-endian, as those of all machines that PostgreSQL's driver runs on."""
    return str(array("f", vector).tolist())
