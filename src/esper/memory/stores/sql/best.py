"""The best items of a word index that fit a filter. Does not know how the index ranks."""

from __future__ import annotations

from typing import Final

from esper.memory.stores.sql.connection import Connection, Row
from esper.memory.stores.sql.where import conditions
from esper.memory.stores.store import Filter

_AHEAD: Final = 4


def best_items(
    connection: Connection,
    columns: str,
    found: str,
    words: str,
    filter: Filter,
    limit: int,
    *,
    join: str = "JOIN",
) -> list[Row]:
    """``columns`` and relevance, best first; ``found`` gives, for words, row keys as ``chosen`` with ``relevance``."""
    where, values = conditions(filter, time="created", subject="item.id")
    sql = (
        f"SELECT {columns}, relevance FROM ({{found}}) AS best {join} item ON item.key = chosen WHERE {where} "
        "ORDER BY relevance DESC, item.key DESC LIMIT ?"
    )
    best = sql.format(found=f"{found} ORDER BY relevance DESC, chosen DESC LIMIT ?")
    rows = connection.rows(best, (words, _AHEAD * limit, *values, limit))
    if len(rows) == limit:
        return rows
    # the filter took so many of the best that those behind them count, too
    return connection.rows(sql.format(found=found), (words, *values, limit))
