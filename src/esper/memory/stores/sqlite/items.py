"""What can be recalled, and its words, in SQLite. Does not know how a final rank is made."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from esper.memory.learning.trust import trust_of
from esper.memory.records import Item, Lesson
from esper.memory.stores.sqlite.connection import Connection, Row
from esper.memory.stores.sqlite.where import conditions, marks
from esper.memory.stores.store import Filter, Hit, SearchText

_WEIGHTS: Final = "2.0, 1.0, 1.0"
_COLUMNS: Final = ", ".join(
    f"item.{name}"
    for name in (
        *(
            "id",
            "kind",
            "pattern",
            "signature",
            "namespace",
            "task_type",
            "domain",
            "state",
            "created",
            "score",
        ),
        *("successes", "failures", "occurrences", "shown", "used", "touched", "last_used", "lesson"),
    )
)
_ADD: Final = (
    "INSERT INTO item (id, kind, pattern, signature, namespace, task_type, domain, state, created, score, successes, "
    "failures, occurrences, shown, used, touched, last_used, lesson, trust) VALUES ("
    + ", ".join("?" * 19)
    + ")"
)
_UPDATE: Final = (
    "UPDATE item SET score = ?, successes = ?, failures = ?, trust = ?, occurrences = ?, used = ?, touched = ?, "
    "last_used = ?, state = ? WHERE id = ?"
)
_REWRITE_TEXT: Final = (
    "INSERT OR REPLACE INTO item_text (rowid, title, context, detail) "
    "SELECT key, ?, ?, ? FROM item WHERE id = ?"
)
_ADD_TEXT: Final = "INSERT INTO item_text (rowid, title, context, detail) VALUES (?, ?, ?, ?)"

_encode = msgspec.msgpack.encode
_decode = msgspec.msgpack.Decoder(Lesson).decode


class SqliteItems:
    """Fulfils ``Items``."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(self, items: Iterable[tuple[Item, SearchText]]) -> None:
        """Write new items and index their words."""
        with self._connection.transaction():
            for item, text in items:
                self._connection.write(_ADD, _row_of(item))
                key = self._connection.last_key
                self._connection.write(_ADD_TEXT, (key, text.title, text.context, text.detail))

    def update(self, items: Iterable[Item]) -> None:
        """Write what changes when an item is seen, shown or used."""
        self._connection.write_many(_UPDATE, [_counts_of(item) for item in items])

    def rewrite(self, item: Item, text: SearchText) -> None:
        """Replace lesson and words."""
        with self._connection.transaction():
            self._connection.write("UPDATE item SET lesson = ? WHERE id = ?", (_encode(item.lesson), item.id))
            self._connection.write(_REWRITE_TEXT, (text.title, text.context, text.detail, item.id))

    def get(self, ids: Sequence[str]) -> dict[str, Item]:
        """The items that are there, in the order of ``ids``."""
        rows = self._connection.rows(f"SELECT {_COLUMNS} FROM item WHERE id IN ({marks(ids)})", tuple(ids))
        found = {row[0]: _item_of(row) for row in rows}
        return {id: found[id] for id in ids if id in found}

    def signed(self, signatures: Sequence[int]) -> dict[int, Item]:
        """The patterns with these signatures."""
        sql = f"SELECT {_COLUMNS} FROM item WHERE signature IN ({marks(signatures)}) ORDER BY key"
        return {row[3]: _item_of(row) for row in self._connection.rows(sql, tuple(signatures))}

    def search(self, terms: Sequence[str], filter: Filter, limit: int) -> list[Hit]:
        """Items that hold any of the terms, best first."""
        if not terms:
            return []
        where, values = conditions(filter, time="created", subject="item.id")
        sql = (
            f"SELECT {_COLUMNS}, -bm25(item_text, {_WEIGHTS}) AS relevance FROM item_text "
            f"JOIN item ON item.key = item_text.rowid WHERE item_text MATCH ? AND {where} "
            "ORDER BY relevance DESC, item.key DESC LIMIT ?"
        )
        rows = self._connection.rows(sql, (_any_of(terms), *values, limit))
        return [Hit(_item_of(row), row[18]) for row in rows]

    def find(self, filter: Filter, *, limit: int = 100) -> list[Item]:
        """Items by trust, then occurrences."""
        where, values = conditions(filter, time="created", subject="item.id")
        sql = f"SELECT {_COLUMNS} FROM item WHERE {where} ORDER BY trust DESC, occurrences DESC, key LIMIT ?"
        return [_item_of(row) for row in self._connection.rows(sql, (*values, limit))]

    def forget(self, ids: Sequence[str]) -> None:
        """Erase items and their words."""
        ids, held = tuple(ids), marks(ids)
        with self._connection.transaction():
            keys = f"(SELECT key FROM item WHERE id IN ({held}))"
            self._connection.write(f"DELETE FROM item_text WHERE rowid IN {keys}", ids)
            for table, column in (
                ("item", "id"),
                ("tag", "subject"),
                ("relation", "source"),
                ("relation", "target"),
            ):
                self._connection.write(f"DELETE FROM {table} WHERE {column} IN ({held})", ids)


def _any_of(terms: Sequence[str]) -> str:
    return " OR ".join('"' + term.replace('"', '""') + '"' for term in terms)


def _row_of(item: Item) -> Row:
    return (
        *(item.id, item.kind, item.pattern, item.signature, item.namespace, item.task_type, item.domain),
        *(item.state, item.created, item.score, item.successes, item.failures, item.occurrences),
        *(item.shown, item.used, item.touched, item.last_used, _encode(item.lesson), _trust(item)),
    )


def _counts_of(item: Item) -> Row:
    return (
        *(item.score, item.successes, item.failures, _trust(item), item.occurrences, item.used),
        *(item.touched, item.last_used, item.state, item.id),
    )


def _trust(item: Item) -> float:
    return trust_of(item.successes, item.failures).lower


def _item_of(row: Row) -> Item:
    return Item(
        id=row[0],
        kind=row[1],
        pattern=row[2],
        signature=row[3],
        namespace=row[4],
        task_type=row[5],
        domain=row[6],
        state=row[7],
        created=row[8],
        score=row[9],
        successes=row[10],
        failures=row[11],
        occurrences=row[12],
        shown=row[13],
        used=row[14],
        touched=row[15],
        last_used=row[16],
        lesson=_decode(row[17]),
    )
