"""What can be recalled, in SQL. Does not know how words are indexed, nor how a final rank is made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec

from esper.memory.learning.trust import trust_of
from esper.memory.records import Item, Lesson, Tally
from esper.memory.stores.sql.connection import Connection, Row, WordIndex
from esper.memory.stores.sql.where import conditions, marks
from esper.memory.stores.store import Embedded, Filter, Hit, SearchText

_IDENTITY: Final = (
    "id, kind, pattern, signature, namespace, task_type, domain, thread, created, score, lesson"
)
_TALLY: Final = "successes, failures, occurrences, shown, used, touched, last_used, state"
_COLUMNS: Final = ", ".join(f"item.{name}" for name in f"{_IDENTITY}, {_TALLY}".split(", "))
_ADD: Final = f"INSERT INTO item ({_IDENTITY}, {_TALLY}, trust) VALUES ({marks(range(20))}) RETURNING key"
_UPDATE: Final = (
    "UPDATE item SET successes = ?, failures = ?, trust = ?, occurrences = ?, used = ?, touched = ?, last_used = ?, "
    "state = ? WHERE "
)
_REWRITE: Final = "UPDATE item SET lesson = ? WHERE id = ? RETURNING key"
_PUT_VECTOR: Final = (
    "INSERT INTO embedding SELECT key, ?, ? FROM item WHERE id = ? "
    "ON CONFLICT (item) DO UPDATE SET model = excluded.model, vector = excluded.vector"
)
_VECTORS: Final = (
    "SELECT item.key, id, namespace, vector FROM embedding JOIN item ON item.key = embedding.item "
    "WHERE model = ? AND embedding.item > ? ORDER BY embedding.item LIMIT ?"
)
_UNEMBEDDED: Final = (
    f"SELECT {_COLUMNS}, item.key FROM item WHERE item.key > ? AND NOT EXISTS "
    "(SELECT 1 FROM embedding WHERE embedding.item = item.key AND model = ?) ORDER BY item.key LIMIT ?"
)
_THREAD: Final = "namespace = ? AND thread = ? AND thread <> '' ORDER BY key DESC LIMIT ?"

_encode = msgspec.msgpack.encode
_decode = msgspec.msgpack.Decoder(Lesson).decode


class SqlItems:
    """Fulfils ``Items``."""

    def __init__(self, connection: Connection, index: WordIndex) -> None:
        self._connection = connection
        self._index = index

    def add(self, items: Iterable[tuple[Item, SearchText]]) -> None:
        """Write new items and index their words."""
        with self._connection.transaction():
            for item, text in items:
                [(key,)] = self._connection.rows(_ADD, _row_of(item))
                self._index.add(key, text)

    def update(self, tallies: Mapping[str, Tally]) -> None:
        """Write tallies, by id."""
        rows = [(*_counts_of(tally), id) for id, tally in tallies.items()]
        self._connection.write_many(_UPDATE + "id = ?", rows)

    def update_signed(self, tallies: Mapping[int, Tally]) -> None:
        """Write tallies of patterns, by signature."""
        rows = [(*_counts_of(tally), signature) for signature, tally in tallies.items()]
        self._connection.write_many(_UPDATE + "signature = ?", rows)

    def rewrite(self, item: Item, text: SearchText) -> None:
        """Replace lesson and words."""
        with self._connection.transaction():
            for (key,) in self._connection.rows(_REWRITE, (_encode(item.lesson), item.id)):
                self._index.replace(key, text)

    def get(self, ids: Sequence[str], *, filter: Filter | None = None) -> dict[str, Item]:
        """The items that are there, in the order of ``ids``."""
        where, values = conditions(filter or Filter(), time="created", subject="item.id")
        sql = f"SELECT {_COLUMNS} FROM item WHERE id IN ({marks(ids)}) AND {where}"
        rows = self._connection.rows(sql, (*ids, *values))
        found = {row[0]: _item_of(row) for row in rows}
        return {id: found[id] for id in ids if id in found}

    def signed(self, signatures: Sequence[int]) -> dict[int, Item]:
        """The patterns with these signatures."""
        sql = f"SELECT {_COLUMNS} FROM item WHERE signature IN ({marks(signatures)}) ORDER BY key"
        return {row[3]: _item_of(row) for row in self._connection.rows(sql, tuple(signatures))}

    def tallies(self, signatures: Sequence[int]) -> dict[int, Tally]:
        """The tallies of the patterns with these signatures."""
        sql = f"SELECT signature, {_TALLY} FROM item WHERE signature IN ({marks(signatures)})"
        return {row[0]: Tally(*row[1:]) for row in self._connection.rows(sql, tuple(signatures))}

    def warnings(self, signatures: Sequence[int]) -> set[int]:
        """Those of these signatures that are anti-patterns."""
        sql = (
            f"SELECT signature FROM item WHERE signature IN ({marks(signatures)}) AND pattern = 'antipattern'"
        )
        return {row[0] for row in self._connection.rows(sql, tuple(signatures))}

    def thread(self, namespace: str, thread: str, limit: int) -> list[Item]:
        """The last ``limit`` items of a thread, oldest first."""
        sql = f"SELECT {_COLUMNS} FROM item WHERE {_THREAD}"
        return [_item_of(row) for row in reversed(self._connection.rows(sql, (namespace, thread, limit)))]

    def size(self) -> int:
        """About how many items there are."""
        row = self._connection.row("SELECT max(key) FROM item")
        return row[0] or 0 if row else 0

    def frequencies(self, terms: Sequence[str]) -> dict[str, int]:
        """In how many items each term stands."""
        return dict(self._index.frequencies(terms))

    def num_held(self, id: str, terms: Sequence[str]) -> int:
        """How many of these terms stand in an item."""
        return self._index.num_held(id, terms)

    def put_vectors(self, model: str, vectors: Mapping[str, bytes]) -> None:
        """Keep an embedding for each item id."""
        self._connection.write_many(_PUT_VECTOR, [(model, vector, id) for id, vector in vectors.items()])

    def vectors(self, model: str, *, after: int = 0, limit: int = 10_000) -> list[Embedded]:
        """Embeddings of a model in the order of places."""
        return [Embedded(*row) for row in self._connection.rows(_VECTORS, (model, after, limit))]

    def unembedded(self, model: str, limit: int, *, after: int = 0) -> list[tuple[int, Item]]:
        """Items that have no embedding of this model, each with its place."""
        rows = self._connection.rows(_UNEMBEDDED, (after, model, limit))
        return [(row[19], _item_of(row)) for row in rows]

    def search(self, terms: Sequence[str], filter: Filter, limit: int) -> list[Hit]:
        """Items that hold any of the terms, best first."""
        if not terms:
            return []
        return [Hit(_item_of(row), row[19]) for row in self._index.best(_COLUMNS, terms, filter, limit)]

    def find(self, filter: Filter, *, limit: int = 100) -> list[Item]:
        """Items by trust, then occurrences."""
        where, values = conditions(filter, time="created", subject="item.id")
        sql = f"SELECT {_COLUMNS} FROM item WHERE {where} ORDER BY trust DESC, occurrences DESC, key LIMIT ?"
        return [_item_of(row) for row in self._connection.rows(sql, (*values, limit))]

    def forget(self, ids: Sequence[str]) -> None:
        """Erase items and their words."""
        ids, held = tuple(ids), marks(ids)
        with self._connection.transaction():
            self._index.remove(ids)
            for table, column in (
                ("item", "id"),
                ("tag", "subject"),
                ("relation", "source"),
                ("relation", "target"),
            ):
                self._connection.write(f"DELETE FROM {table} WHERE {column} IN ({held})", ids)


def _row_of(item: Item) -> Row:
    tally = item.tally
    return (
        *(
            item.id,
            item.kind,
            item.pattern,
            item.signature,
            item.namespace,
            item.task_type,
            item.domain,
            item.thread,
        ),
        *(item.created, item.score, _encode(item.lesson), tally.successes, tally.failures, tally.occurrences),
        *(tally.shown, tally.used, tally.touched, tally.last_used, tally.state, _trust(tally)),
    )


def _counts_of(tally: Tally) -> Row:
    return (
        tally.successes,
        tally.failures,
        _trust(tally),
        tally.occurrences,
        tally.used,
        tally.touched,
        tally.last_used,
        tally.state,
    )


def _trust(tally: Tally) -> float:
    return trust_of(tally.successes, tally.failures).lower


def _item_of(row: Row) -> Item:
    return Item(
        id=row[0],
        kind=row[1],
        pattern=row[2],
        signature=row[3],
        namespace=row[4],
        task_type=row[5],
        domain=row[6],
        thread=row[7],
        created=row[8],
        score=row[9],
        lesson=_decode(row[10]),
        tally=Tally(*row[11:19]),
    )
