"""Which episodes showed what, in FTS5. Does not know what a signature stands for.

FTS5 appends what an episode showed as one sorted run and merges runs by and by: a third of the time of forty rows
scattered over a B-tree.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from esper.memory.stores.sql.connection import Connection, Row
from esper.memory.stores.sql.where import marks

_ADD: Final = "INSERT INTO sighted (rowid, signatures) VALUES (?, ?)"
_COUNT: Final = "SELECT count(*) FROM sighted WHERE sighted MATCH ?"
_LATEST: Final = (
    "SELECT {columns} FROM (SELECT rowid AS seen_in FROM sighted WHERE sighted MATCH ? "
    "ORDER BY rowid DESC LIMIT ?) JOIN episode ON episode.key = seen_in ORDER BY seen_in DESC"
)
_UNSIGNED: Final = (1 << 64) - 1


class SqliteSightings:
    """Fulfils ``SightingIndex``."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(self, key: int, signatures: Sequence[int]) -> None:
        """Index what an episode showed."""
        words = " ".join([f"s{sign & _UNSIGNED:x}" for sign in signatures])
        self._connection.write(_ADD, (key, words))

    def remove(self, keys: Sequence[int]) -> None:
        """Forget what episodes showed."""
        self._connection.write(f"DELETE FROM sighted WHERE rowid IN ({marks(keys)})", tuple(keys))

    def counts(self, signatures: Sequence[int]) -> Mapping[int, int]:
        """How many episodes showed each."""
        told = {sign: self._connection.row(_COUNT, (_word(sign),)) for sign in signatures}
        return {sign: row[0] for sign, row in told.items() if row and row[0]}

    def latest(self, columns: str, signature: int, limit: int) -> list[Row]:
        """``columns`` of the latest episodes that showed it, newest first."""
        return self._connection.rows(_LATEST.format(columns=columns), (_word(signature), limit))


def _word(signature: int) -> str:
    """Letters and digits alone: no syntax of a query."""
    return f"s{signature & _UNSIGNED:x}"
