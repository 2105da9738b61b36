"""What SQLite alone does: migrations of files, query plans, files that are none of ours."""

from __future__ import annotations

import gzip
import sqlite3
from pathlib import Path

import pytest

from esper.errors import MemoryStoreError
from esper.memory import Memory
from esper.memory.stores.sqlite import migrations
from esper.memory.stores.sqlite.store import SqliteStore
from esper.memory.stores.store import Filter
from esper.testing.memory_store import episode

_VERSION_1 = Path(__file__).with_name("version_1.db.gz")


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
    backup = SqliteStore(tmp_path / f"memory.db.v{len(migrations.scripts())}.backup")
    assert len(backup.episodes.find(Filter())) == 1
    backup.close()


def test_a_memory_of_version_1_is_taken_over_with_its_evidence_and_learns_on(tmp_path, clock):
    path = tmp_path / "memory.db"
    path.write_bytes(gzip.decompress(_VERSION_1.read_bytes()))
    with Memory(path, clock=clock) as memory:
        patterns = {item.lesson.text: item for item in memory.patterns()}
        cure = patterns["after pytest failed with <number> failed: editor: freeze the clock"]
        evidence = memory.store.sightings.evidence(cure.signature, 9)
        assert [(seen.first, seen.last, seen.reward) for seen in evidence] == [(1, 3, 1.0)] * 4
        assert memory.store.sightings.counts([cure.signature]) == {cure.signature: 4}
        advice = memory.advise({"task_type": "bugfix", "domain": "ci"}, ["editor"])
        assert advice.recommendations[0].num_episodes == 6
        memory.forget(episode=evidence[0].episode)
        assert len(memory.store.sightings.evidence(cure.signature, 9)) == 3
        with memory.episode("fix the flaky test", task_type="bugfix", domain="ci") as again:
            again.step("pytest", "run the suite", error="2 failed")
            again.step("editor", "freeze the clock")
            again.step("pytest", "run the suite")
        assert memory.store.sightings.evidence(cure.signature, 1)[0].episode == again.id
        assert memory.recall("which machines run the suite").relevant
        assert memory.store.check() == []
    assert (tmp_path / "memory.db.v1.backup").is_file()


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
