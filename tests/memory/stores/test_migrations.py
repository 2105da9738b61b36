"""Migrations that are out never change: a database that went through them would be another one than a new one."""

from __future__ import annotations

import hashlib
from importlib.resources import files

RELEASED = {
    "sqlite/001_memory.sql": "796d06573877a9e3",
    "sqlite/002_evidence.sql": "1ed765ba1cc08fb7",
    "sqlite/003_embedding.sql": "c7ec3a93ff0b138a",
    "postgres/001_memory.sql": "73dbfaf5d53cc4d1",
    "postgres/002_evidence.sql": "b55ffcdb37d93d01",
    "postgres/003_posting.sql": "301282a90852f8c8",
    "postgres/004_embedding.sql": "ce2b4d953bff19c4",
}
"""The first digits of each file's SHA-256; a new number is a new line, and no line is ever changed.

One was: before the first release ``postgres/001`` could not run beside pgvector; 004 makes both memories the same.
"""


def test_a_released_migration_never_changes():
    stores = files("esper.memory.stores")
    found = {
        f"{kind}/{entry.name}": hashlib.sha256(entry.read_bytes()).hexdigest()[:16]
        for kind in ("sqlite", "postgres")
        for entry in (stores / kind / "schema").iterdir()
        if entry.name.endswith(".sql")
    }
    assert found == RELEASED


def test_numbers_have_no_gap():
    for kind in ("sqlite", "postgres"):
        names = sorted(name.partition("/")[2] for name in RELEASED if name.startswith(kind))
        assert [int(name[:3]) for name in names] == list(range(1, len(names) + 1))
