"""The words of items in FTS5. Does not know what an item says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from esper.memory.recall.ranking import WEIGHTS, any_of
from esper.memory.stores.sql.connection import Connection, Row
from esper.memory.stores.sql.where import conditions, marks
from esper.memory.stores.store import Filter, SearchText

_ADD: Final = "INSERT INTO item_text (rowid, title, context, detail, nearby) VALUES (?, ?, ?, ?, ?)"
_REPLACE: Final = _ADD.replace("INSERT", "INSERT OR REPLACE", 1)
_COUNT: Final = "SELECT count(*) FROM item_text WHERE item_text MATCH ?"
_HELD: Final = "SELECT 1 FROM item_text WHERE item_text MATCH ? AND rowid = ?"
_BM25: Final = f"-bm25(item_text, {WEIGHTS.title}, {WEIGHTS.context}, {WEIGHTS.detail}, {WEIGHTS.nearby})"
_ALL: Final = f"SELECT rowid AS found, {_BM25} AS relevance FROM item_text WHERE item_text MATCH ?"
_BEST: Final = f"{_ALL} ORDER BY relevance DESC, rowid DESC LIMIT ?"
_AHEAD: Final = 4


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
        where, values = conditions(filter, time="created", subject="item.id")
        words = any_of(terms)
        rows = self._connection.rows(_search(columns, _BEST, where), (words, _AHEAD * limit, *values, limit))
        if len(rows) == limit:
            return rows
        # the filter took so many of the best that those behind them count, too
        return self._connection.rows(_search(columns, _ALL, where), (words, *values, limit))


def _search(columns: str, found: str, where: str) -> str:
    """CROSS JOIN keeps SQLite from walking a whole namespace to look each item up among the found ones."""
    return (
        f"SELECT {columns}, relevance FROM ({found}) CROSS JOIN item ON item.key = found WHERE {where} "
        "ORDER BY relevance DESC, item.key DESC LIMIT ?"
    )


def _fields(text: SearchText) -> tuple[str, str, str, str]:
    return text.title, text.context, text.detail, text.nearby
