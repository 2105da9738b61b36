"""Figures, health, audit, erasing, backup and restore from a shell."""

from __future__ import annotations

import pytest

from esper.memory import Memory, Options


def test_stats_count_what_is_there(shell, solve):
    solve(), solve(ending="fail")
    shell("--namespace", "other", "note", "elsewhere")
    found = shell.json("stats")
    assert (found["counts"]["episodes"], found["num_latest"], found["reward"], found["steps"]) == (
        2,
        2,
        0.5,
        2,
    )
    assert found["namespaces"] == ["default", "other"]
    assert "mean reward of the latest 2 episodes  0.5" in shell("stats")


def test_an_empty_memory_has_figures_too(shell):
    assert shell.json("stats")["reward"] is None
    assert "–" in shell("stats")


def test_health_asks_the_database(shell, solve):
    solve()
    assert shell.json("health")["problems"] == []
    assert "all is well" in shell("health")


def spoil(file):
    """Overwrite the middle of a database."""
    content = bytearray(file.read_bytes())
    content[8 * 4096 : 20 * 4096] = b"\x5a" * (12 * 4096)
    file.write_bytes(content)


def test_health_tells_of_a_damaged_file(shell, solve, tmp_path):
    for _ in range(3):
        solve()
    spoil(tmp_path / ".esper" / "memory.db")
    code, out, _ = shell.run("health", "--json")
    assert code == 1
    assert '"ok": false' in out


def test_audit_finds_duplicates_loops_stale_and_secrets(shell, tmp_path):
    old = 1_700_000_000 * 10**9
    with Memory(
        tmp_path / ".esper" / "memory.db", options=Options(redact=False), clock=lambda: old
    ) as memory:
        left = memory.episode("never ended").id
        with memory.episode("go round") as round_:
            for _ in range(3):
                round_.step("grep", "search"), round_.step("cat", "read")
        leak = memory.note("the key is sk-abcdefghijklmnopqrstuvwxyz123456").id
        twice = {memory.note("Water the plants").id, memory.note("water  the plants").id}
    found = shell.json("audit")
    by_kind = {
        kind: [one for one in found if one["kind"] == kind]
        for kind in ("duplicate", "loop", "secret", "stale")
    }
    assert [{one["subject"], *one["others"]} for one in by_kind["duplicate"]] == [twice]
    assert [one["subject"] for one in by_kind["loop"]] == [round_.id]
    assert "grep → cat: 3 times over, steps 1 to 6" in by_kind["loop"][0]["message"]
    assert [one["subject"] for one in by_kind["secret"]] == [leak]
    assert left in [one["subject"] for one in by_kind["stale"]]
    assert "sk-abc" not in shell("audit")


def test_strict_makes_findings_an_exit_code(shell):
    assert shell("audit", "--strict") == "nothing found"
    shell("note", "twice"), shell("note", "twice")
    assert shell("audit") != "nothing found"
    assert shell.run("audit", "--strict")[0] == 1


def test_maintain_and_retain_say_what_they_did(shell, solve):
    solve()
    assert shell("maintain") == "0 retired"
    assert "1 erased, 0 kept" in shell("retain", "--days", 0, "--yes")
    assert shell("episode", "list") == "no such episodes"


@pytest.mark.parametrize("words", [("retain", "--days", "0"), ("forget",), ("restore", "x.db")])
def test_what_erases_asks_first(shell, solve, words):
    solve()
    assert "--yes" in shell.refused(*words)
    assert len(shell.json("episode", "list")) == 1


def test_forget_erases_one_namespace(shell, solve):
    solve()
    shell("--namespace", "other", "note", "stays")
    assert shell("forget", "--yes").startswith("1 episodes erased")
    assert shell.json("stats")["namespaces"] == ["other"]


def test_a_backup_comes_back(shell, solve, tmp_path):
    id = solve()
    shell("backup", tmp_path / "copy.db")
    assert "--force" in shell.refused("backup", tmp_path / "copy.db")
    shell("episode", "delete", id, "--yes")
    shell("restore", tmp_path / "copy.db", "--yes")
    assert shell.json("episode", "view", id)["state"] == "completed"
    assert shell.json("--at", tmp_path / ".esper" / "memory.db.old", "episode", "list") == []
    assert sorted(path.name for path in (tmp_path / ".esper").iterdir()) == ["memory.db", "memory.db.old"]


def test_a_file_that_is_no_backup_changes_nothing(shell, solve, tmp_path):
    id = solve()
    (tmp_path / "text.db").write_text("no database " * 100)
    assert "error:" in shell.refused("restore", tmp_path / "text.db", "--yes")
    assert "error:" in shell.refused("restore", tmp_path / "missing.db", "--yes")
    assert shell.json("episode", "view", "latest")["id"] == id
    assert "no file" in shell.refused("--at", "postgresql://x/y", "restore", tmp_path / "text.db", "--yes")


def test_a_damaged_backup_is_not_restored(shell, solve, tmp_path):
    id = solve()
    shell("backup", tmp_path / "copy.db")
    spoil(tmp_path / "copy.db")
    assert "take another backup" in shell.refused("restore", tmp_path / "copy.db", "--yes")
    assert shell.json("episode", "view", "latest")["id"] == id
    assert [path.name for path in (tmp_path / ".esper").iterdir()] == ["memory.db"]


def test_vacuum_takes_erased_words_out_of_the_file(shell, tmp_path):
    id = shell("episode", "create", "xylophone")
    shell("episode", "fail", id)
    shell("episode", "delete", id, "--yes")
    shell("vacuum")
    assert b"xylophon" not in (tmp_path / ".esper" / "memory.db").read_bytes()


def test_a_monitor_reads_the_figures(shell, solve):
    solve()
    assert 'episodes_stored_total{namespace="default"} 1' in shell("stats", "--prometheus").splitlines()
