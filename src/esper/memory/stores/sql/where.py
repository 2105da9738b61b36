"""Conditions in SQL from a filter. Every value is a parameter, never text."""

from __future__ import annotations

from collections.abc import Sized
from typing import Any

from esper.memory.stores.store import Filter


def marks(values: Sized) -> str:
    """``?, ?, ?`` for as many values, ``NULL`` for none."""
    return ", ".join("?" * len(values)) or "NULL"


def conditions(filter: Filter, *, time: str, subject: str) -> tuple[str, list[Any]]:
    """An SQL condition and its values; ``time`` and ``subject`` name the columns of time and id."""
    equal = {
        "namespace": filter.namespace,
        "task_type": filter.task_type,
        "domain": filter.domain,
        "state": filter.state,
    }
    parts: list[tuple[str, list[Any]]] = [
        (f"{column} = ?", [value]) for column, value in equal.items() if value is not None
    ]
    parts += [(f"{time} >= ?", [filter.since])] if filter.since is not None else []
    parts += [(f"{time} < ?", [filter.until])] if filter.until is not None else []
    parts += [(f"kind IN ({marks(filter.kinds)})", [*filter.kinds])] if filter.kinds else []
    parts += [(f"pattern IN ({marks(filter.patterns)})", [*filter.patterns])] if filter.patterns else []
    parts += [(_tagged(subject, filter.any_tags), [*filter.any_tags])] if filter.any_tags else []
    parts += [(_tagged(subject, (name,)), [name]) for name in filter.all_tags]
    return " AND ".join(sql for sql, _ in parts) or "TRUE", [value for _, values in parts for value in values]


def _tagged(subject: str, names: tuple[str, ...]) -> str:
    return f"EXISTS (SELECT 1 FROM tag WHERE subject = {subject} AND name IN ({marks(names)}))"
