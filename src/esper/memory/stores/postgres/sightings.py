"""Which episodes showed what, as rows. Does not know what a signature stands for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from esper.memory.stores.sql.connection import Connection, Row
from esper.memory.stores.sql.where import marks

_ADD: Final = "INSERT INTO sighting SELECT unnest(?::bigint[]), ?"
_LATEST: Final = (
    "SELECT {columns} FROM sighting JOIN episode ON episode.key = sighting.episode "
    "WHERE signature = ? ORDER BY sighting.episode DESC LIMIT ?"
)


class PostgresSightings:
    """Fulfils ``SightingIndex``."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(self, key: int, signatures: Sequence[int]) -> None:
        """Index what an episode showed."""
        self._connection.write(_ADD, (list(signatures), key))

    def remove(self, keys: Sequence[int]) -> None:
        """Forget what episodes showed."""
        told = f"SELECT evidence FROM episode WHERE key IN ({marks(keys)})"
        shown = f"SELECT (json_array_elements(convert_from(evidence, 'UTF8')::json)->>0)::bigint FROM ({told}) AS those"
        sql = f"DELETE FROM sighting WHERE signature IN ({shown}) AND episode IN ({marks(keys)})"
        self._connection.write(sql, (*keys, *keys))

    def counts(self, signatures: Sequence[int]) -> Mapping[int, int]:
        """How many episodes showed each."""
        sql = f"SELECT signature, count(*) FROM sighting WHERE signature IN ({marks(signatures)}) GROUP BY signature"
        return dict(self._connection.rows(sql, tuple(signatures)))

    def latest(self, columns: str, signature: int, limit: int) -> list[Row]:
        """``columns`` of the latest episodes that showed it, newest first."""
        return self._connection.rows(_LATEST.format(columns=columns), (signature, limit))
