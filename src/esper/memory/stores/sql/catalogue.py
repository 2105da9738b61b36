"""Tags, relations and checkpoints in SQL. Does not know which relations may form a ring."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal

from esper.errors import EpisodeError
from esper.memory.records import Checkpoint, Relation
from esper.memory.stores.sql.connection import Connection

_RENAME: Final = "INSERT INTO tag SELECT ?, subject FROM tag WHERE name = ? ON CONFLICT DO NOTHING"
_CHECKPOINT: Final = (
    "INSERT INTO checkpoint (id, episode, number, note, created) "
    "SELECT ?, key, ?, ?, ? FROM episode WHERE id = ?"
)
_CHECKPOINTS: Final = (
    "SELECT checkpoint.id, episode.id, number, note, created FROM checkpoint "
    "JOIN episode ON episode.key = checkpoint.episode WHERE episode.id = ? ORDER BY created, checkpoint.id"
)


class SqlCatalogue:
    """Fulfils ``Catalogue``."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def tag(self, subject: str, names: Iterable[str]) -> None:
        """Add tags."""
        self._connection.write_many(
            "INSERT INTO tag VALUES (?, ?) ON CONFLICT DO NOTHING", [(name, subject) for name in names]
        )

    def untag(self, subject: str, names: Iterable[str]) -> None:
        """Take tags away."""
        rows = [(name, subject) for name in names]
        self._connection.write_many("DELETE FROM tag WHERE name = ? AND subject = ?", rows)

    def rename_tag(self, old: str, new: str) -> int:
        """Rename everywhere."""
        with self._connection.transaction():
            row = self._connection.row("SELECT count(*) FROM tag WHERE name = ?", (old,))
            self._connection.write(_RENAME, (new, old))
            if old != new:
                self._connection.write("DELETE FROM tag WHERE name = ?", (old,))
            return row[0] if row else 0

    def tags(self) -> dict[str, int]:
        """Every tag with the number of its subjects."""
        return dict(
            self._connection.rows("SELECT name, count(*) FROM tag GROUP BY name ORDER BY count(*) DESC, name")
        )

    def relate(self, relation: Relation) -> None:
        """Write a relation."""
        self._connection.write(
            "INSERT INTO relation (type, source, target, created) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
            (relation.type, relation.source, relation.target, relation.created),
        )

    def unrelate(self, relation: Relation) -> None:
        """Take a relation away."""
        self._connection.write(
            "DELETE FROM relation WHERE type = ? AND source = ? AND target = ?",
            (relation.type, relation.source, relation.target),
        )

    def relations(self, id: str, *, direction: Literal["from", "to"], type: str = "") -> list[Relation]:
        """Relations from or to an id."""
        end = {"from": "source", "to": "target"}[direction]
        sql = f"SELECT type, source, target, created FROM relation WHERE {end} = ?"
        rows = self._connection.rows(sql + " AND type = ?" * bool(type), (id, type) if type else (id,))
        return [
            Relation(type=row[0], source=row[1], target=row[2], created=row[3])
            for row in sorted(rows, key=lambda row: (row[0], row[3], row[1], row[2]))
        ]

    def checkpoint(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint."""
        values = (checkpoint.id, checkpoint.number, checkpoint.note, checkpoint.created, checkpoint.episode)
        if not self._connection.write(_CHECKPOINT, values):
            raise EpisodeError(f"there is no episode {checkpoint.episode}")

    def checkpoints(self, episode: str) -> list[Checkpoint]:
        """An episode's checkpoints, oldest first."""
        return [
            Checkpoint(id=row[0], episode=row[1], number=row[2], note=row[3], created=row[4])
            for row in self._connection.rows(_CHECKPOINTS, (episode,))
        ]
