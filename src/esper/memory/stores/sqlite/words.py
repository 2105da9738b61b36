"""The words of items in FTS5. Does not know what an item says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from esper.memory.recall.ranking import WEIGHTS, any_of
from esper.memory.stores.sql.best import best_items
from esper.memory.stores.sql.connection import Connection, Row
from esper.memory.stores.sql.where import marks
from esper.memory.stores.store import Filter, SearchText

_ADD: Final = "INSERT INTO item_text (rowid, title, context, detail, nearby) VALUES (?, ?, ?, ?, ?)"
_REPLACE: Final = _ADD.replace("INSERT", "INSERT OR REPLACE", 1)
_COUNT: Final = "SELECT count(*) FROM item_text WHERE item_text MATCH ?"
_HELD: Final = "SELECT 1 FROM item_text WHERE item_text MATCH ? AND rowid = ?"
_BM25: Final = f"-bm25(item_text, {WEIGHTS.title}, {WEIGHTS.context}, {WEIGHTS.detail}, {WEIGHTS.nearby})"
_FOUND: Final = f"SELECT rowid AS chosen, {_BM25} AS relevance FROM item_text WHERE item_text MATCH ?"


class SqliteWords:
    """Fulfils ``WordIndex``."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(self, key: int, text: SearchText) -> None:
        """Index an item's words."""
        self._connection.write(_ADD, (key, *_fields(text)))

    def replace(self, key: int, text: SearchText) -> None:
        """Index other words."""
        self._connection.write(_REPLACE, (key, *_fields(text)))

    def remove(self, ids: Sequence[str]) -> None:
        """Forget the words of items."""
        keys = f"SELECT key FROM item WHERE id IN ({marks(ids)})"
        self._connection.write(f"DELETE FROM item_text WHERE rowid IN ({keys})", tuple(ids))

    def frequencies(self, terms: Sequence[str]) -> Mapping[str, int]:
        """In how many items each term stands."""
        return {term: (self._connection.row(_COUNT, (any_of([term]),)) or (0,))[0] for term in terms}

    def num_held(self, id: str, terms: Sequence[str]) -> int:
        """How many of these terms stand in an item."""
        row = self._connection.row("SELECT key FROM item WHERE id = ?", (id,))
        if row is None:
            return 0
        return sum(self._connection.row(_HELD, (any_of([term]), row[0])) is not None for term in terms)

    def best(self, columns: str, terms: Sequence[str], filter: Filter, limit: int) -> list[Row]:
        """The best items by BM25."""
        # CROSS JOIN keeps SQLite from walking a whole namespace to look each item up among the found ones
        return best_items(self._connection, columns, _FOUND, any_of(terms), filter, limit, join="CROSS JOIN")


def _fields(text: SearchText) -> tuple[str, str, str, str]:
    return text.title, text.context, text.detail, text.nearby
