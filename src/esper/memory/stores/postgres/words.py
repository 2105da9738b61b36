"""The words of items in PostgreSQL's full text search, ranked by BM25. Does not know what an item says.

PostgreSQL's own ranks know nothing of how rare a word is: they only choose, weighted by it, for which items BM25 is
worked out. Words are cut and stemmed as the FTS5 index does it, so that both stores find the same.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from typing import Final

from esper.memory.recall.ranking import WEIGHTS
from esper.memory.recall.words import tokens
from esper.memory.stores.sql.connection import Connection, Row
from esper.memory.stores.sql.where import conditions, marks
from esper.memory.stores.store import Filter, SearchText

MAX_FIELD: Final = 50_000
"""Of a longer field the first so many characters can be searched: a ``tsvector`` holds a mebibyte."""
_AHEAD: Final = 200
_VECTOR: Final = " || ".join(f"setweight(to_tsvector('esper', ?), '{letter}')" for letter in "ABCD")
_ADD: Final = f"INSERT INTO item_text (item, words, length) VALUES (?, {_VECTOR}, ?)"
_GROW: Final = "UPDATE corpus SET num_items = num_items + ?, num_words = num_words + ?"
_FIELDS: Final = (WEIGHTS.nearby, WEIGHTS.detail, WEIGHTS.context, WEIGHTS.title)
_WEIGHTS: Final = f"'{{{', '.join(str(weight / max(_FIELDS)) for weight in _FIELDS)}}}'::float4[]"
_WEIGHT: Final = (
    f"CASE letter WHEN 'A' THEN {WEIGHTS.title} WHEN 'B' THEN {WEIGHTS.context} "
    f"WHEN 'C' THEN {WEIGHTS.detail} ELSE {WEIGHTS.nearby} END"
)
_BEST: Final = f"""
WITH asked AS MATERIALIZED (
    SELECT lexeme, quote_literal(lexeme)::tsquery AS query
    FROM unnest(tsvector_to_array(to_tsvector('esper', ?))) AS lexeme
), found AS MATERIALIZED (
    SELECT item, words, length / (SELECT num_words / num_items::float8 FROM corpus) AS share
    FROM item_text WHERE words @@ (SELECT string_agg(query::text, ' | ')::tsquery FROM asked)
), telling AS MATERIALIZED (
    SELECT lexeme, query, greatest(ln((num_items - n + 0.5) / (n + 0.5)::float8), 1e-6) AS rarity
    FROM corpus, (SELECT lexeme, query, (SELECT count(*) FROM found WHERE words @@ query) AS n FROM asked) AS counted
), chosen AS MATERIALIZED (
    SELECT item.key AS chosen, words, share FROM found JOIN item ON item.key = found.item WHERE {{where}}
    ORDER BY (SELECT sum(rarity * ts_rank({_WEIGHTS}, words, query)) FROM telling) / (1 + share) DESC, item DESC
    LIMIT ?
), counted AS (
    SELECT chosen, share, lexeme, (SELECT sum({_WEIGHT}) FROM unnest(weights) AS letter)::float8 AS f
    FROM chosen, unnest(words) WHERE lexeme IN (SELECT lexeme FROM asked)
), scored AS (
    SELECT chosen, sum(rarity * f * 2.2 / (f + 1.2 * (0.25 + 0.75 * share))) AS relevance
    FROM counted JOIN telling USING (lexeme) GROUP BY chosen
)
SELECT {{columns}}, relevance FROM scored JOIN item ON item.key = chosen ORDER BY relevance DESC, item.key DESC LIMIT ?
"""
_COUNT: Final = (
    "SELECT term, (SELECT count(*) FROM item_text WHERE words @@ plainto_tsquery('esper', plain)) "
    "FROM unnest(?::text[], ?::text[]) AS asked (term, plain)"
)
_HELD: Final = (
    "SELECT count(*) FROM unnest(?::text[]) AS asked (plain), item_text JOIN item ON item.key = item_text.item "
    "WHERE item.id = ? AND words @@ plainto_tsquery('esper', plain)"
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
            self._connection.write(_ADD, (key, *fields, length))
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
            gone = self._connection.rows(f"DELETE FROM item_text WHERE {where} RETURNING length", values)
            self._connection.write(_GROW, (-len(gone), -sum(row[0] for row in gone)))

    def frequencies(self, terms: Sequence[str]) -> Mapping[str, int]:
        """In how many items each term stands."""
        return dict(self._connection.rows(_COUNT, (list(terms), [_plain(term) for term in terms])))

    def num_held(self, id: str, terms: Sequence[str]) -> int:
        """How many of these terms stand in an item."""
        row = self._connection.row(_HELD, ([_plain(term) for term in terms], id))
        return int(row[0]) if row else 0

    def best(self, columns: str, terms: Sequence[str], filter: Filter, limit: int) -> list[Row]:
        """The best items by BM25."""
        where, values = conditions(filter, time="created", subject="item.id")
        sql = _BEST.replace("{where}", where).replace("{columns}", columns)
        return self._connection.rows(sql, (_plain(" ".join(terms)), *values, max(_AHEAD, 4 * limit), limit))


def _plain(text: str) -> str:
    """Lower-case words without diacritics, a space between them: nothing is left for a parser to make out."""
    text = text[:MAX_FIELD]
    if not text.isascii():
        text = "".join(one for one in unicodedata.normalize("NFD", text) if not unicodedata.combining(one))
    return " ".join(tokens(text))
