"""The words of items in PostgreSQL, ranked by BM25. Does not know what an item says.

Full text search of PostgreSQL cuts and stems the words, as the FTS5 index does it, so that both stores find the same;
its own ranks know nothing of how rare a word is, and looking into every text that holds a common word takes tens of
milliseconds: so where a word stands, and how often, is kept in a table of our own.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from esper.memory.recall.ranking import WEIGHTS
from esper.memory.recall.words import tokens
from esper.memory.stores.sql.best import best_items
from esper.memory.stores.sql.connection import Connection, Row
from esper.memory.stores.sql.where import marks
from esper.memory.stores.store import Filter, SearchText

MAX_FIELD: Final = 50_000
"""Of a longer field the first so many characters can be searched: a ``tsvector`` holds a mebibyte."""
_VECTOR: Final = " || ".join(f"setweight(to_tsvector('esper', ?), '{letter}')" for letter in "ABCD")
_TIMES: Final = ", ".join(f"cardinality(array_positions(weights, '{letter}'))" for letter in "ABCD")
_ADD: Final = f"INSERT INTO posting SELECT lexeme, ?, {_TIMES} FROM unnest({_VECTOR})"
_ADD_LENGTH: Final = "INSERT INTO item_text (item, length) VALUES (?, ?)"
_GROW: Final = "UPDATE corpus SET num_items = num_items + ?, num_words = num_words + ?"
_WEIGHED: Final = " + ".join(
    f"{weight}::float8 * posting.{name}" for name, weight in msgspec.structs.asdict(WEIGHTS).items()
)
_FOUND: Final = f"""
WITH asked AS MATERIALIZED (
    SELECT lexeme FROM unnest(tsvector_to_array(to_tsvector('esper', ?))) AS lexeme
), telling AS MATERIALIZED (
    SELECT lexeme, num_words / nullif(num_items, 0)::float8 AS usual,
        greatest(ln((num_items - n + 0.5) / (n + 0.5)::float8), 1e-6) AS rarity
    FROM corpus, (SELECT lexeme, (SELECT count(*) FROM posting WHERE term = lexeme) AS n FROM asked) AS counted
), found AS (
    SELECT posting.item, rarity, {_WEIGHED} AS f, length / usual AS share
    FROM telling JOIN posting ON term = lexeme JOIN item_text ON item_text.item = posting.item
)
SELECT item AS chosen, sum(rarity * f * 2.2 / (f + 1.2 * (0.25 + 0.75 * share))) AS relevance
FROM found GROUP BY item
"""
_LEXEMES: Final = (
    "SELECT plain, tsvector_to_array(to_tsvector('esper', plain)) AS lexemes FROM unnest(?::text[]) AS plain"
)
_HOLDING: Final = (
    "SELECT count(*) FROM (SELECT FROM posting WHERE term = ANY (lexemes) GROUP BY item "
    "HAVING count(*) = cardinality(lexemes)) AS holding"
)
_COUNT: Final = f"SELECT plain, ({_HOLDING}) FROM ({_LEXEMES}) AS asked"
_HELD: Final = (
    f"SELECT count(*) FROM ({_LEXEMES}) AS asked WHERE lexemes <> '{{}}' AND (SELECT count(*) FROM posting "
    "WHERE item = ? AND term = ANY (lexemes)) = cardinality(lexemes)"
)


class PostgresWords:
    """Fulfils ``WordIndex``."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(self, key: int, text: SearchText) -> None:
        """Index an item's words."""
        fields = [_plain(field) for field in (text.title, text.context, text.detail, text.nearby)]
        length = sum(len(field.split()) for field in fields)
        with self._connection.transaction():
            self._connection.write(_ADD, (key, *fields))
            self._connection.write(_ADD_LENGTH, (key, length))
            self._connection.write(_GROW, (1, length))

    def replace(self, key: int, text: SearchText) -> None:
        """Index other words."""
        with self._connection.transaction():
            self._remove("item = ?", (key,))
            self.add(key, text)

    def remove(self, ids: Sequence[str]) -> None:
        """Forget the words of items."""
        self._remove(f"item IN (SELECT key FROM item WHERE id IN ({marks(ids)}))", tuple(ids))

    def _remove(self, where: str, values: Sequence[int | str]) -> None:
        with self._connection.transaction():
            self._connection.write(f"DELETE FROM posting WHERE {where}", values)
            gone = self._connection.rows(f"DELETE FROM item_text WHERE {where} RETURNING length", values)
            self._connection.write(_GROW, (-len(gone), -sum(row[0] for row in gone)))

    def frequencies(self, terms: Sequence[str]) -> Mapping[str, int]:
        """In how many items each term stands."""
        plain = {term: _plain(term) for term in terms}
        counts: dict[str, int] = dict(self._connection.rows(_COUNT, (list(dict.fromkeys(plain.values())),)))
        return {term: counts[word] for term, word in plain.items()}

    def num_held(self, id: str, terms: Sequence[str]) -> int:
        """How many of these terms stand in an item."""
        row = self._connection.row("SELECT key FROM item WHERE id = ?", (id,))
        if row is None:
            return 0
        told = self._connection.row(_HELD, ([_plain(term) for term in terms], row[0]))
        return int(told[0]) if told else 0

    def best(self, columns: str, terms: Sequence[str], filter: Filter, limit: int) -> list[Row]:
        """The best items by BM25."""
        return best_items(self._connection, columns, _FOUND, _plain(" ".join(terms)), filter, limit)


def _plain(text: str) -> str:
    """Lower-case words without diacritics, a space between them: nothing is left for a parser to make out."""
    text = text[:MAX_FIELD]
    if not text.isascii():
        text = "".join(one for one in unicodedata.normalize("NFD", text) if not unicodedata.combining(one))
    return " ".join(tokens(text))
