"""What the tables need of a database. Knows neither which database it is nor its tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from esper.memory.stores.store import Filter, SearchText

Row = tuple[Any, ...]


class Connection(Protocol):
    """Runs statements whose values are marked ``?``.

    Raises ``EpisodeError`` where a constraint is broken, ``MemoryStoreError`` for all else that goes wrong.
    """

    def rows(self, sql: str, values: Sequence[Any] = ()) -> list[Row]:
        """Run one statement and give all its rows."""
        ...

    def row(self, sql: str, values: Sequence[Any] = ()) -> Row | None:
        """Run one statement and give its first row."""
        ...

    def write(self, sql: str, values: Sequence[Any] = ()) -> int:
        """Run one statement inside a transaction; the number of rows it changed."""
        ...

    def write_many(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        """Run one statement for each row inside a transaction."""
        ...

    def transaction(self) -> AbstractContextManager[None]:
        """All or nothing, and no other writer meanwhile; the outermost commits."""
        ...

    def appending(self) -> AbstractContextManager[None]:
        """A transaction that only adds rows nobody else adds: others may append at the same time."""
        ...


class WordIndex(Protocol):
    """Finds items, told by their row keys, by their words."""

    def add(self, key: int, text: SearchText) -> None:
        """Index an item's words."""
        ...

    def replace(self, key: int, text: SearchText) -> None:
        """Put these words in place of those that were indexed."""
        ...

    def remove(self, ids: Sequence[str]) -> None:
        """Forget the words of the items with these ids; call it before the items go."""
        ...

    def frequencies(self, terms: Sequence[str]) -> Mapping[str, int]:
        """In how many items each term stands."""
        ...

    def num_held(self, id: str, terms: Sequence[str]) -> int:
        """How many of these terms stand in the item with this id."""
        ...

    def best(self, columns: str, terms: Sequence[str], filter: Filter, limit: int) -> list[Row]:
        """``columns`` of the best items and, behind them, their BM25; best first."""
        ...


class SightingIndex(Protocol):
    """Finds episodes, told by their row keys, by the signatures of what they showed."""

    def add(self, key: int, signatures: Sequence[int]) -> None:
        """Index what an episode showed, each signature once."""
        ...

    def remove(self, keys: Sequence[int]) -> None:
        """Forget what episodes showed; call it before the episodes go."""
        ...

    def counts(self, signatures: Sequence[int]) -> Mapping[int, int]:
        """How many episodes showed each; those that none showed are left out."""
        ...

    def latest(self, columns: str, signature: int, limit: int) -> list[Row]:
        """``columns`` of the latest episodes that showed it, newest first."""
        ...
