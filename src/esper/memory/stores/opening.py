"""Which store a location means. Does not know what is kept in it."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from esper.errors import ConfigurationError
from esper.memory.stores.sqlite.connection import MEMORY
from esper.memory.stores.sqlite.store import SqliteStore
from esper.memory.stores.store import Store

_PGVECTOR: Final = "postgresql+pgvector"
_POSTGRES: Final = ("postgresql", "postgres", _PGVECTOR)


def open_store(location: str | Path | None = None, *, power: bool = False) -> Store:
    """A file, ``":memory:"``, a ``sqlite:///`` URL or a ``postgresql://`` URL.

    ``postgresql+pgvector://`` lets the server compare vectors: for memories whose vectors do not fit into the process.

    By default what ``ESPER_MEMORY_URL`` says, else ``memory.db`` in the project's folder.

    Raises:
        ConfigurationError: a URL of a kind that we do not know, or PostgreSQL without its extra.
        MemoryStoreError: the store cannot be opened.
    """
    if location is None:
        location = _default()
    if isinstance(location, str) and "://" in location:
        return _by_url(location, power=power)
    return SqliteStore(location, power=power)


def file_of(location: str | Path | None = None) -> Path:
    """The file that a location means, whether it is there or not.

    Raises:
        ConfigurationError: it is no file.
    """
    named = _default() if location is None else location
    text = str(named).removeprefix("sqlite:///") if isinstance(named, str) else str(named)
    if "://" in text or text == MEMORY:
        raise ConfigurationError("this memory is no file: use the tools of its server")
    return Path(text)


def _default() -> str | Path:
    from esper.settings import (
        Settings,
        project_home,
    )  # reading settings takes longer to import than all of the memory

    return Settings().memory_url or project_home() / "memory.db"


def _by_url(url: str, *, power: bool) -> Store:
    kind, _, rest = url.partition("://")
    if kind in _POSTGRES:
        return _postgres(f"postgresql://{rest}", power=power, pgvector=kind == _PGVECTOR)
    if kind != "sqlite" or not rest.startswith("/") or rest == "/":
        raise ConfigurationError(
            f"cannot open a memory at {kind}://: give a file, sqlite:///<file> or postgresql://<server>/<database>"
        )
    return SqliteStore(rest[1:], power=power)


def _postgres(url: str, *, power: bool, pgvector: bool) -> Store:
    try:
        from esper.memory.stores.postgres.store import PostgresStore
    except ImportError as error:
        raise ConfigurationError("PostgreSQL needs its driver: pip install 'esper-grow[postgres]'") from error
    return PostgresStore(url, power=power, pgvector=pgvector)
