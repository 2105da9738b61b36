"""Which store a location means. Does not know what is kept in it."""

from __future__ import annotations

from pathlib import Path

from esper.errors import ConfigurationError
from esper.memory.stores.sqlite.store import SqliteStore
from esper.memory.stores.store import Store


def open_store(location: str | Path | None = None, *, power: bool = False) -> Store:
    """A file, ``":memory:"``, or a ``sqlite:///`` URL.

    By default what ``ESPER_MEMORY_URL`` says, else ``memory.db`` in the project's folder.

    Raises:
        ConfigurationError: a URL of a kind that we do not know.
        MemoryStoreError: the store cannot be opened.
    """
    if location is None:
        location = _default()
    if isinstance(location, str) and "://" in location:
        return SqliteStore(_path_of(location), power=power)
    return SqliteStore(location, power=power)


def _default() -> str | Path:
    from esper.settings import (
        Settings,
        project_home,
    )  # reading settings takes longer to import than all of the memory

    return Settings().memory_url or project_home() / "memory.db"


def _path_of(url: str) -> str:
    kind, _, path = url.partition(":///")
    if kind != "sqlite" or not path:
        raise ConfigurationError(
            f"cannot open a memory at {url.partition('://')[0]}://: give a file or sqlite:///<file>"
        )
    return path
