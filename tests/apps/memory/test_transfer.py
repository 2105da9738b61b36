"""Export and import from a shell."""

from __future__ import annotations

import json

CONVERSATION = {
    "messages": [
        {"role": "user", "content": "cancel my flight"},
        {"role": "assistant", "tool_calls": [{"id": "a", "function": {"name": "cancel", "arguments": "{}"}}]},
        {"role": "tool", "tool_call_id": "a", "content": "done"},
    ]
}


def test_a_memory_goes_through_a_pipe(shell, solve):
    id = solve()
    told = shell("export")
    assert json.loads(told.splitlines()[0])["record"] == "memory"
    assert (
        shell("--at", "other.db", "import", "-", given=told)
        == "1 imported, 0 there already, 0 lines left out"
    )
    assert shell.json("--at", "other.db", "episode", "view", id) == shell.json("episode", "view", id)


def test_a_memory_goes_through_a_file(shell, solve, tmp_path):
    solve()
    shell("export", tmp_path / "memory.jsonl")
    assert shell("import", tmp_path / "memory.jsonl") == "0 imported, 1 there already, 0 lines left out"


def test_a_trace_is_imported_and_recalled(shell):
    found = shell.json("import", "-", "-f", "openai", "--ending", "success", given=json.dumps(CONVERSATION))
    assert shell.json("recall", "cancel a flight")["answers"][0]["id"] == found["taken"][0]


def test_a_trace_without_an_ending_is_told(shell):
    code, out, hint = shell.run("import", "-", "-f", "openai", given=json.dumps(CONVERSATION))
    assert (code, out) == (0, "1 imported, 0 there already, 0 lines left out\n")
    assert "1 do not say how they ended" in hint


def test_bad_lines_stop_an_import_unless_they_may_be_skipped(shell):
    content = json.dumps(CONVERSATION) + "\n{broken\n"
    told = shell.refused("import", "-", "-f", "openai", given=content)
    assert "line 2: it is no JSON" in told
    assert shell("episode", "list") == "no such episodes"
    code, out, left = shell.run("import", "-", "-f", "openai", "--skip-bad", given=content)
    assert (code, out) == (0, "1 imported, 0 there already, 1 lines left out\n")
    assert left.startswith("left out line 2: ")


def test_files_that_cannot_be_read_or_written_are_clear_errors(shell, tmp_path):
    assert "cannot read" in shell.refused("import", tmp_path / "missing.jsonl")
    assert "cannot write" in shell.refused("export", tmp_path / "missing" / "memory.jsonl")


def test_names_with_path_separators_are_names_and_touch_no_other_file(shell, tmp_path):
    odd = "../../outside/..\\x"
    shell("--namespace", odd, "note", "kept", "--title", "../title", "--tag", "/etc/passwd")
    id = shell("--namespace", odd, "episode", "create", "go ../../up", "--type", "a/b", "--domain", "c:\\d")
    shell("--namespace", odd, "episode", "complete", id)
    before = sorted(path for path in tmp_path.parent.rglob("*") if ".esper" not in path.parts)
    shell("--namespace", odd, "export", tmp_path / "odd.jsonl")
    after = sorted(path for path in tmp_path.parent.rglob("*") if ".esper" not in path.parts)
    assert set(after) - set(before) == {tmp_path / "odd.jsonl"}
    shell("--at", "other.db", "--namespace", odd, "import", tmp_path / "odd.jsonl")
    told = shell.json("--at", "other.db", "--namespace", odd, "episode", "view", id)
    assert told == shell.json("--namespace", odd, "episode", "view", id)
    assert shell.json("--at", "other.db", "--namespace", odd, "tag", "list") == {"/etc/passwd": 1}
