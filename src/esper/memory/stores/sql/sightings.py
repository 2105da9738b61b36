"""Sightings and exposures in SQL. Does not know what they prove."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from esper.memory.records import Evidence, Exposure, Feedback
from esper.memory.stores.sql.connection import Connection, SightingIndex
from esper.memory.stores.sql.where import marks
from esper.memory.stores.store import Experience, Sighting, Support

_PUT_SUPPORT: Final = (
    "INSERT INTO support VALUES (?, ?, ?) "
    "ON CONFLICT (signature) DO UPDATE SET seen = excluded.seen, won = excluded.won"
)
_PUT_HABITS: Final = (
    "INSERT INTO habit VALUES (?, ?, ?) ON CONFLICT (namespace, scope) DO UPDATE SET counts = excluded.counts"
)
_EXPERIENCE: Final = "episode.id, episode.reward, value, task_type, domain, context"
_EXPOSE: Final = (
    "INSERT INTO exposure (id, namespace, query, episode, at) "
    "VALUES (?, ?, ?, (SELECT key FROM episode WHERE id = ?), ?) RETURNING key"
)
_EXPOSED: Final = "INSERT INTO exposed (exposure, place, item) SELECT ?, ?, key FROM item WHERE id = ?"
_USE: Final = (
    "UPDATE exposed SET used_at = ?, reward = ? WHERE exposure = (SELECT key FROM exposure WHERE id = ?) "
    "AND item = (SELECT key FROM item WHERE id = ?)"
)
_PENDING: Final = (
    "SELECT exposure.id, item.id, used_at FROM exposure JOIN exposed ON exposed.exposure = exposure.key "
    "JOIN item ON item.key = exposed.item WHERE exposure.episode = (SELECT key FROM episode WHERE id = ?) "
    "AND used_at IS NOT NULL AND reward IS NULL ORDER BY used_at, exposure.key, place"
)
_SHOWN_IN: Final = (
    "SELECT item.id, exposure.id FROM exposure JOIN exposed ON exposed.exposure = exposure.key "
    "JOIN item ON item.key = exposed.item WHERE exposure.episode = (SELECT key FROM episode WHERE id = ?) "
    "ORDER BY exposure.key, place"
)
_USES: Final = (
    "SELECT exposure.id, item.id, reward, used_at FROM exposure JOIN exposed ON exposed.exposure = exposure.key "
    "JOIN item ON item.key = exposed.item WHERE exposure.id = ? AND used_at IS NOT NULL ORDER BY place"
)
_REWARDS: Final = (
    "SELECT exposure.id, item.id, reward, used_at FROM item JOIN exposed ON exposed.item = item.key "
    "JOIN exposure ON exposure.key = exposed.exposure WHERE item.id = ? AND reward IS NOT NULL "
    "ORDER BY used_at, exposure.key"
)

_encode = msgspec.msgpack.encode
_decode_evidence = msgspec.json.Decoder(list[Sighting]).decode
_decode_counts = msgspec.msgpack.Decoder(dict[str, float]).decode
_decode_context = msgspec.msgpack.Decoder(dict[str, Any]).decode


class SqlSightings:
    """Fulfils ``Sightings``."""

    def __init__(self, connection: Connection, index: SightingIndex) -> None:
        self._connection = connection
        self._index = index

    def counts(self, signatures: Sequence[int]) -> dict[int, int]:
        """In how many distinct episodes each signature was seen."""
        return dict(self._index.counts(signatures))

    def evidence(self, signature: int, limit: int) -> list[Evidence]:
        """The latest evidence, newest first."""
        return [
            Evidence(episode=id, first=seen.first, last=seen.last, reward=seen.reward)
            for id, told in self._index.latest("episode.id, evidence", signature, limit)
            for seen in _decode_evidence(told)
            if seen.signature == signature
        ]

    def experiences(self, signature: int, limit: int) -> list[Experience]:
        """The latest episodes in which it was seen, newest first."""
        return [
            Experience(id, reward or 0.0, value, _situation(task_type, domain) | _decode_context(context))
            for id, reward, value, task_type, domain, context in self._index.latest(
                _EXPERIENCE, signature, limit
            )
        ]

    def of_episode(self, episode: str) -> list[int]:
        """The signatures that were seen in an episode."""
        return [seen.signature for seen in self.in_episode(episode)]

    def in_episode(self, episode: str) -> list[Sighting]:
        """All that was seen in an episode."""
        row = self._connection.row("SELECT evidence FROM episode WHERE id = ?", (episode,))
        told = _decode_evidence(row[0]) if row and row[0] else []
        return sorted(told, key=lambda seen: seen.signature)

    def support(self, signatures: Sequence[int]) -> dict[int, Support]:
        """What was put for these signatures."""
        sql = f"SELECT signature, seen, won FROM support WHERE signature IN ({marks(signatures)})"
        return {row[0]: Support(row[1], row[2]) for row in self._connection.rows(sql, tuple(signatures))}

    def put_support(self, support: Mapping[int, Support]) -> None:
        """Write the support of signatures."""
        rows = [(signature, told.seen, told.won) for signature, told in sorted(support.items())]
        self._connection.write_many(_PUT_SUPPORT, rows)

    def habits(self, namespace: str, scopes: Sequence[str]) -> dict[str, dict[str, float]]:
        """How often each thing was done in each of these kinds of task."""
        sql = f"SELECT scope, counts FROM habit WHERE namespace = ? AND scope IN ({marks(scopes)})"
        rows = self._connection.rows(sql, (namespace, *scopes))
        return {scope: {} for scope in scopes} | {scope: _decode_counts(counts) for scope, counts in rows}

    def put_habits(self, namespace: str, habits: Mapping[str, Mapping[str, float]]) -> None:
        """Write the habits of kinds of task."""
        with self._connection.transaction():
            empty = [(namespace, scope) for scope, counts in habits.items() if not counts]
            if empty:
                self._connection.write_many("DELETE FROM habit WHERE namespace = ? AND scope = ?", empty)
            rows = [(namespace, scope, _encode(counts)) for scope, counts in habits.items() if counts]
            self._connection.write_many(_PUT_HABITS, rows)


def _situation(task_type: str, domain: str) -> dict[str, Any]:
    known = {"task_type": task_type, "domain": domain}
    return {name: value for name, value in known.items() if value}


class SqlExposures:
    """Fulfils ``Exposures``."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(self, exposures: Iterable[Exposure]) -> None:
        """Write exposures; their items count as shown."""
        with self._connection.transaction():
            for shown in exposures:
                values = (shown.id, shown.namespace, shown.query, shown.episode, shown.at)
                [(key,)] = self._connection.rows(_EXPOSE, values)
                places = [(key, place, item) for place, item in enumerate(shown.items)]
                self._connection.write_many(_EXPOSED, places)
                held = marks(shown.items)
                self._connection.write(f"UPDATE item SET shown = shown + 1 WHERE id IN ({held})", shown.items)

    def get(self, id: str) -> Exposure | None:
        """One exposure."""
        sql = (
            "SELECT key, id, query, namespace, (SELECT id FROM episode WHERE key = exposure.episode), at "
            "FROM exposure WHERE id = ?"
        )
        row = self._connection.row(sql, (id,))
        if row is None:
            return None
        items = self._connection.rows(
            "SELECT item.id FROM exposed JOIN item ON item.key = exposed.item WHERE exposure = ? ORDER BY place",
            (row[0],),
        )
        return Exposure(
            id=row[1],
            query=row[2],
            namespace=row[3],
            episode=row[4],
            at=row[5],
            items=tuple(item for (item,) in items),
        )

    def of_episode(self, episode: str) -> dict[str, str]:
        """The items shown in an episode, each with its latest exposure."""
        return dict(self._connection.rows(_SHOWN_IN, (episode,)))

    def use(self, feedback: Iterable[Feedback]) -> None:
        """Note that items of an exposure were used."""
        rows = [(told.at, told.reward, told.exposure, told.item) for told in feedback]
        self._connection.write_many(_USE, rows)

    def pending(self, episode: str) -> list[Feedback]:
        """What was used in an episode and has no reward yet."""
        rows = self._connection.rows(_PENDING, (episode,))
        return [Feedback(exposure=row[0], item=row[1], at=row[2]) for row in rows]

    def rewards(self, item: str) -> list[Feedback]:
        """Every use of an item that has a reward, oldest first."""
        rows = self._connection.rows(_REWARDS, (item,))
        return [Feedback(exposure=row[0], item=row[1], reward=row[2], at=row[3]) for row in rows]

    def find(self, namespace: str, *, after: str = "", limit: int = 100) -> list[Exposure]:
        """Exposures by id."""
        sql = "SELECT id FROM exposure WHERE namespace = ? AND id > ? ORDER BY id LIMIT ?"
        ids = [row[0] for row in self._connection.rows(sql, (namespace, after, limit))]
        return [found for found in map(self.get, ids) if found is not None]

    def uses(self, exposure: str) -> list[Feedback]:
        """What of an exposure was used, best first."""
        rows = self._connection.rows(_USES, (exposure,))
        return [Feedback(exposure=row[0], item=row[1], reward=row[2], at=row[3]) for row in rows]
