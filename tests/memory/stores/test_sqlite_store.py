"""What SQLite alone does: migrations of files, query plans, files that are none of ours."""

from __future__ import annotations

import sqlite3

import pytest

from esper.errors import MemoryStoreError
from esper.memory.stores.sqlite import migrations
from esper.memory.stores.sqlite.store import SqliteStore
from esper.memory.stores.store import Filter
from esper.testing.memory_store import episode


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b"this is no database at all, but a text that is long enough to be looked at. " * 20,
            "not a SQLite database",
        ),
        (b"", None),
    ],
)
def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path, content, message):
    path = tmp_path / "memory.db"
    path.write_bytes(content)
    if message is None:
        SqliteStore(path).close()
        return
    with pytest.raises(MemoryStoreError, match=message):
        SqliteStore(path)
    assert path.read_bytes() == content


def test_another_programs_database_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "other.db"
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE mine (x)")
    other.close()
    with pytest.raises(MemoryStoreError, match="another program"):
        SqliteStore(path)


def test_a_newer_schema_is_refused(tmp_path):
    path = tmp_path / "memory.db"
    store = SqliteStore(path)
    store.connection.script("PRAGMA user_version = 99")
    store.close()
    with pytest.raises(MemoryStoreError, match="newer"):
        SqliteStore(path)


def test_a_migration_makes_a_backup_first_and_keeps_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "memory.db"
    store = SqliteStore(path)
    store.episodes.add([episode(1)])
    store.close()
    scripts = (*migrations.scripts(), "CREATE TABLE later (x); INSERT INTO later SELECT id FROM episode;")
    monkeypatch.setattr(migrations, "scripts", lambda: scripts)
    store = SqliteStore(path)
    assert store.connection.rows("SELECT x FROM later") == [("episode-0001",)]
    assert len(store.episodes.find(Filter())) == 1
    store.close()
    monkeypatch.undo()
    backup = SqliteStore(tmp_path / "memory.db.v1.backup")
    assert len(backup.episodes.find(Filter())) == 1
    backup.close()


def test_a_migration_that_fails_leaves_the_database_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "memory.db"
    SqliteStore(path).close()
    scripts = (*migrations.scripts(), "CREATE TABLE later (x); SELECT nonsense;")
    monkeypatch.setattr(migrations, "scripts", lambda: scripts)
    with pytest.raises(MemoryStoreError, match="nonsense"):
        SqliteStore(path)
    monkeypatch.undo()
    store = SqliteStore(path)
    assert store.check() == []
    assert store.connection.rows("SELECT name FROM sqlite_schema WHERE name = 'later'") == []
    store.close()


@pytest.mark.parametrize(
    ("sql", "index"),
    [
        (
            "SELECT * FROM episode WHERE task_type = 'a' AND domain = 'b' ORDER BY started DESC",
            "episode_by_type",
        ),
        ("SELECT * FROM item WHERE kind = 'pattern' ORDER BY trust DESC, occurrences DESC", "item_by_trust"),
        ("SELECT * FROM episode WHERE namespace = 'a' ORDER BY started DESC", "episode_by_namespace"),
        ("SELECT * FROM item WHERE signature IN (1, 2)", "item_by_signature"),
    ],
)
def test_the_query_plan_uses_the_composite_index_and_sorts_nothing(sql, index):
    store = SqliteStore(":memory:")
    plan = " ".join(row[3] for row in store.connection.rows(f"EXPLAIN QUERY PLAN {sql}"))
    store.close()
    assert f"USING INDEX {index}" in plan
    assert "TEMP B-TREE" not in plan


def test_the_plan_for_efforts_reads_the_index_alone():
    store = SqliteStore(":memory:")
    sql = (
        "SELECT num_steps, (ended - started) / 1e9, tokens FROM episode "
        "WHERE namespace = ? AND task_type = ? AND domain = ? AND reward >= 0.5 ORDER BY started DESC LIMIT ?"
    )
    plan = " ".join(row[3] for row in store.connection.rows(f"EXPLAIN QUERY PLAN {sql}", ("", "", "", 1)))
    store.close()
    assert "USING COVERING INDEX episode_effort" in plan
