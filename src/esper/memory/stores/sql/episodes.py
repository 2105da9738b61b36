"""Episodes and steps in SQL. Does not know what is learned from them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from esper.errors import EpisodeError
from esper.memory.records import Episode, Outcome, Reflection, Score, Step
from esper.memory.stores.sql.connection import Connection, Row, SightingIndex, WordIndex
from esper.memory.stores.sql.where import conditions, marks
from esper.memory.stores.store import Effort, Filter, Sighting

_BETWEEN: Final = "\x1f"
_COLUMNS: Final = (
    "key, id, task, task_type, domain, namespace, context, state, started, ended, num_steps, body, "
    f"(SELECT string_agg(name, '{_BETWEEN}' ORDER BY name) FROM tag WHERE subject = episode.id)"
)
_ADD: Final = (
    "INSERT INTO episode (id, task, task_type, domain, namespace, context, state, started) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
)
_ADD_STEP: Final = "INSERT INTO step VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
_STEP: Final = "number, tool, action, error, latency, tokens, at, body"
_FINISH: Final = (
    "UPDATE episode SET state = ?, ended = ?, num_steps = ?, tokens = ?, reward = ?, value = ?, score = ?, body = ?, "
    "evidence = ? WHERE id = ? AND state = 'open'"
)
_SIZES: Final = (
    "SELECT id, octet_length(task) + octet_length(context) + coalesce(octet_length(body), 0) "
    "+ coalesce(octet_length(evidence), 0) + CAST(coalesce((SELECT sum(octet_length(tool) + octet_length(action) "
    "+ coalesce(octet_length(error), 0) + coalesce(octet_length(step.body), 0)) FROM step "
    "WHERE step.episode = episode.key), 0) AS BIGINT) FROM episode"
)
_UNSUPPORT: Final = "UPDATE support SET seen = seen - 1, won = won - ? WHERE signature = ?"
_NUM_KEYS: Final = 4_096


class _Body(msgspec.Struct, omit_defaults=True, array_like=True):
    """What is read only with its episode. Fields are only ever added, at the end."""

    outcome: Outcome | None = None
    score: Score | None = None
    reflection: Reflection | None = None
    credit: tuple[float, ...] = ()


_encode = msgspec.msgpack.Encoder(enc_hook=repr).encode
_decode_body = msgspec.msgpack.Decoder(_Body).decode
_decode_context = msgspec.msgpack.Decoder(dict[str, Any]).decode
_decode_any = msgspec.msgpack.Decoder().decode
_encode_evidence = msgspec.json.Encoder().encode
_decode_evidence = msgspec.json.Decoder(list[Sighting]).decode


class SqlEpisodes:
    """Fulfils ``Episodes``."""

    def __init__(self, connection: Connection, index: WordIndex, sightings: SightingIndex) -> None:
        self._connection = connection
        self._index = index
        self._sightings = sightings
        self._keys: dict[str, int] = {}

    def add(self, episodes: Iterable[Episode]) -> None:
        """Write new episodes."""
        episodes = list(episodes)
        tags = [(name, episode.id) for episode in episodes for name in episode.tags]
        with self._connection.appending():
            for episode in episodes:
                self._keys.pop(
                    episode.id, None
                )  # a transaction that was rolled back may have left another key
            self._connection.write_many(_ADD, map(_row_of, episodes))
            if tags:
                self._connection.write_many("INSERT INTO tag VALUES (?, ?) ON CONFLICT DO NOTHING", tags)

    def add_steps(self, steps: Iterable[tuple[str, Step]]) -> None:
        """Write steps, each with its episode's id."""
        with self._connection.appending():
            self._connection.write_many(_ADD_STEP, [_step_row(self._key(id), step) for id, step in steps])

    def finish(self, episode: Episode, seen: Sequence[Sighting] = ()) -> None:
        """Write how an open episode ended, and what was seen in it."""
        outcome, score = episode.outcome, episode.score
        told = list({one.signature: one for one in seen}.values())
        values = (
            episode.state,
            episode.ended,
            episode.num_steps,
            sum(step.tokens or 0 for step in episode.steps),
            *((outcome.reward, outcome.value) if outcome else (None, None)),
            score.total if score else None,
            _encode(_Body(outcome, score, episode.reflection, episode.credit)),
            _encode_evidence(told) if told else None,
            episode.id,
        )
        with self._connection.transaction():
            if not self._connection.write(_FINISH, values):
                raise EpisodeError(
                    f"episode {episode.id} is not open: it has ended already, or was never started"
                )
            if told:
                self._sightings.add(self._key(episode.id), [one.signature for one in told])

    def get(self, ids: Sequence[str], *, steps: bool = True) -> dict[str, Episode]:
        """The episodes that are there, in the order of ``ids``."""
        rows = self._connection.rows(f"SELECT {_COLUMNS} FROM episode WHERE id IN ({marks(ids)})", tuple(ids))
        by_key = self._steps([row[0] for row in rows]) if steps else {}
        found = {row[1]: _episode_of(row, tuple(by_key.get(row[0], ()))) for row in rows}
        return {id: found[id] for id in ids if id in found}

    def tail(self, id: str, limit: int) -> list[Step]:
        """The last ``limit`` steps, in order."""
        sql = f"SELECT {_STEP} FROM step WHERE episode = ? ORDER BY number DESC LIMIT ?"
        return [_step_of(row) for row in reversed(self._connection.rows(sql, (self._key(id), limit)))]

    def last_number(self, id: str) -> int:
        """The largest step number."""
        row = self._connection.row("SELECT max(number) FROM step WHERE episode = ?", (self._key(id),))
        return row[0] or 0 if row else 0

    def find(self, filter: Filter, *, limit: int = 100, before: str | None = None) -> list[Episode]:
        """Episodes without steps, newest first."""
        where, values = conditions(filter, time="started", subject="episode.id")
        if before is not None:
            where = f"{where} AND (started, id) < (SELECT started, id FROM episode WHERE id = ?)"
            values = [*values, before]
        sql = f"SELECT {_COLUMNS} FROM episode WHERE {where} ORDER BY started DESC, id DESC LIMIT ?"
        return [_episode_of(row) for row in self._connection.rows(sql, (*values, limit))]

    def efforts(self, like: Episode, limit: int) -> list[Effort]:
        """What the latest successes of this kind cost."""
        sql = (
            "SELECT num_steps, ended, started, tokens FROM episode "
            "WHERE namespace = ? AND task_type = ? AND domain = ? AND reward >= 0.5 ORDER BY started DESC LIMIT ?"
        )
        values = (like.namespace, like.task_type, like.domain, limit)
        rows = self._connection.rows(sql, values)
        return [Effort(row[0], (row[1] - row[2]) / 1e9, row[3], row[2]) for row in rows]

    def sizes(self, ids: Sequence[str]) -> dict[str, int]:
        """How many bytes episodes and their steps take."""
        return dict(self._connection.rows(f"{_SIZES} WHERE id IN ({marks(ids)})", tuple(ids)))

    def forget(self, ids: Sequence[str]) -> None:
        """Erase episodes and all that hangs on them."""
        ids, held = tuple(ids), marks(ids)
        with self._connection.transaction():
            self._forget_sightings(ids)
            self._index.remove(ids)
            for sql in (
                f"DELETE FROM item WHERE id IN ({held})",
                f"DELETE FROM tag WHERE subject IN ({held})",
                f"DELETE FROM relation WHERE source IN ({held})",
                f"DELETE FROM relation WHERE target IN ({held})",
                f"DELETE FROM episode WHERE id IN ({held})",
            ):
                self._connection.write(sql, ids)
        for id in ids:
            self._keys.pop(id, None)

    def _forget_sightings(self, ids: Sequence[str]) -> None:
        sql = f"SELECT key, evidence FROM episode WHERE id IN ({marks(ids)}) AND evidence IS NOT NULL"
        rows = self._connection.rows(sql, ids)
        self._sightings.remove([key for key, _ in rows])
        seen = [one for _, evidence in rows for one in _decode_evidence(evidence)]
        self._connection.write_many(_UNSUPPORT, [(one.reward, one.signature) for one in seen])

    def _key(self, id: str) -> int:
        key = self._keys.get(id)
        if key is not None:
            return key
        row = self._connection.row("SELECT key FROM episode WHERE id = ?", (id,))
        if row is None:
            raise EpisodeError(f"there is no episode {id}")
        if len(self._keys) >= _NUM_KEYS:
            self._keys.clear()
        return self._keys.setdefault(id, row[0])

    def _steps(self, keys: list[int]) -> dict[int, list[Step]]:
        steps: dict[int, list[Step]] = {}
        sql = f"SELECT {_STEP}, episode FROM step WHERE episode IN ({marks(keys)}) ORDER BY episode, number"
        for row in self._connection.rows(sql, keys):
            steps.setdefault(row[8], []).append(_step_of(row))
        return steps


def _row_of(episode: Episode) -> Row:
    return (
        *(episode.id, episode.task, episode.task_type, episode.domain, episode.namespace),
        *(_encode(episode.context), episode.state, episode.started),
    )


def _episode_of(row: Row, steps: tuple[Step, ...] = ()) -> Episode:
    body = _decode_body(row[11]) if row[11] else _Body()
    return Episode(
        id=row[1],
        task=row[2],
        task_type=row[3],
        domain=row[4],
        namespace=row[5],
        context=_decode_context(row[6]),
        state=row[7],
        started=row[8],
        ended=row[9],
        num_steps=row[10] or len(steps),
        tags=() if row[12] is None else tuple(row[12].split(_BETWEEN)),
        outcome=body.outcome,
        score=body.score,
        reflection=body.reflection,
        credit=body.credit,
        steps=steps,
    )


def _step_row(key: int, step: Step) -> Row:
    body = None
    if step.parameters is not None or step.result is not None:
        body = _encode((step.parameters, step.result))
    return key, step.number, step.tool, step.action, step.error, step.latency, step.tokens, step.at, body


def _step_of(row: Row) -> Step:
    parameters, result = _decode_any(row[7]) if row[7] else (None, None)
    return Step(
        number=row[0],
        tool=row[1],
        action=row[2],
        error=row[3],
        latency=row[4],
        tokens=row[5],
        at=row[6],
        parameters=parameters,
        result=result,
    )
