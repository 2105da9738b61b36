"""What is exported comes back: facts, what was learned of them, and trust."""

from __future__ import annotations

import json

import msgspec
import pytest

from esper.errors import TransferError
from esper.memory import Memory, Options
from esper.memory.completion import Learning
from esper.memory.records import Reflection
from esper.memory.stores.store import Filter


def fill(memory):
    """Episodes of every ending, a note, feedback, a relation, a checkpoint."""
    ids = []
    for number in range(6):
        with memory.episode(
            f"fix flaky test {number}", task_type="bugfix", domain="ci", tags=["ci"], depth=number
        ) as one:
            found = one.recall("flaky test")
            if found:
                one.used(found[0].id)
            one.step("pytest", "run", error="2 failed", latency=0.5, tokens=10)
            one.step("editor", "freeze the clock", parameters={"line": 3}, result={"passed": True})
            if number % 3 == 2:
                one.fail("the clock ran on", verified=0.0)
            else:
                one.succeed("passed", verified=1.0)
        ids.append(one.id)
    memory.relations.add("follows", ids[1], ids[0])
    memory.relations.add("references", ids[2], memory.patterns()[0].id)
    note = memory.note("the clock of the builder is wrong", tags=["ops"], machine="b7")
    memory.feedback(memory.recall("clock of the builder"), [note.id], reward=1.0)
    memory.episode("given up").abandon()
    left = memory.episode("still open", domain="web")
    left.step("grep", "search")
    memory.checkpoints.save(left.id, note="half way")
    return ids


def records(memory):
    """All that was exported, with ids that a pattern gets anew made equal."""
    lines = [json.loads(line) for line in memory.transfer.export()]
    patterns = {
        line["item"]["id"]: f"pattern {line['item']['lesson']['text']}"
        for line in lines
        if line["record"] == "pattern"
    }
    for line in lines:
        if line["record"] == "relation":
            line["relation"]["target"] = patterns.get(line["relation"]["target"], line["relation"]["target"])
        item = line.get("item") or {}
        for key in ("created", "id") if line["record"] == "pattern" else ():
            item.pop(key)
        if item and "tally" in item:
            item["tally"].pop("shown", None)
        if line["record"] == "exposure":
            line["exposure"]["items"] = [patterns.get(id, id) for id in line["exposure"]["items"]]
            for use in line["uses"]:
                use["item"] = patterns.get(use["item"], use["item"])
    return sorted(json.dumps(line, sort_keys=True) for line in lines)


def test_everything_comes_back(memory, other):
    fill(memory)
    loaded = other.transfer.load(b"".join(memory.transfer.export()))
    assert len(loaded.taken) == 9
    assert records(other) == records(memory)


@pytest.mark.parametrize("location", [":memory:", "postgresql"], indirect=True)
def test_everything_moves_to_another_kind_of_store(memory, location, clock):
    fill(memory)
    with Memory(location, clock=clock) as moved:
        moved.transfer.load(b"".join(memory.transfer.export()))
        assert records(moved) == records(memory)
        assert moved.upkeep.health().ok
        assert [one.kind for one in moved.upkeep.audit()] == [one.kind for one in memory.upkeep.audit()]


def _judged(recalled):
    return sorted((round(one.total, 6), one.text, one.trust.mean) for one in recalled)


def test_what_came_back_is_recalled_and_trusted_alike(memory, other):
    fill(memory)
    other.transfer.load(b"".join(memory.transfer.export()))
    for query in ("flaky test", "clock", "given up"):
        before, after = memory.recall(query, k=50), other.recall(query, k=50)
        assert _judged(after) == _judged(before)
    known = {"task_type": "bugfix", "domain": "ci"}
    before, after = (one.playbook(**known) for one in (memory, other))
    assert (after and after.steps) == (before and before.steps)


def test_a_reflection_stays_as_it_was_written(tmp_path, clock, other):
    learning = Learning(reflect=lambda episode, _: Reflection(advice=(f"mind {episode.task}",)))
    with Memory(tmp_path / "told.db", clock=clock, options=Options(learning=learning)) as told:
        with told.episode("the gap") as episode:
            episode.step("train", "leave")
        other.transfer.load(b"".join(told.transfer.export()))
    assert other.get(episode.id).reflection.advice == ("mind the gap",)


def test_a_second_import_changes_nothing(memory, other):
    fill(memory)
    content = b"".join(memory.transfer.export())
    other.transfer.load(content)
    before = records(other)
    loaded = other.transfer.load(content)
    assert (loaded.taken, loaded.num_already) == ((), 9)
    assert records(other) == before


def test_an_export_can_move_to_another_namespace(memory, tmp_path, clock):
    fill(memory)
    content = b"".join(memory.transfer.export())
    with Memory(tmp_path / "third.db", namespace="mine", clock=clock) as mine:
        mine.transfer.load(content)
        assert len(mine.patterns()) == len(memory.patterns())
        assert mine.recall("flaky test").relevant


def test_what_came_back_goes_on_learning(memory, other):
    fill(memory)
    other.transfer.load(b"".join(memory.transfer.export()))
    (open_,) = other.episodes(Filter(namespace="default", state="open"))
    other.resume(open_.id).succeed("found")
    assert other.recall("still open").ids[0] == open_.id


def test_a_bad_line_is_named_and_nothing_is_half_imported(memory, other):
    fill(memory)
    lines = list(memory.transfer.export())
    lines[3:3] = [
        b"{broken\n",
        b'{"record": "episode", "episode": {"id": 5}}\n',
        b"\xff\xfe\n",
        b'{"record": "x"}\n',
    ]
    with pytest.raises(TransferError, match="line 4: it is no JSON") as caught:
        other.transfer.load(b"".join(lines))
    for words in ("line 5: Expected `str`, got `int` - at `$.episode.id`", "line 6: ", "line 7: "):
        assert words in str(caught.value)
    assert other.store.counts() == dict.fromkeys(other.store.counts(), 0)
    loaded = other.transfer.load(b"".join(lines), skip_bad=True)
    assert [one.number for one in loaded.bad] == [4, 5, 6, 7]
    assert records(other) == records(memory)


def test_a_failure_in_the_middle_takes_nothing(memory, other):
    fill(memory)
    lines = [msgspec.json.decode(line) for line in memory.transfer.export()]
    double = next(line for line in lines if line["record"] == "episode")
    double["episode"]["steps"] *= 2
    with pytest.raises(ValueError, match=r"step|number"):
        other.transfer.load(b"\n".join(map(msgspec.json.encode, lines)))
    assert other.store.counts() == dict.fromkeys(other.store.counts(), 0)


@pytest.mark.parametrize("content", [b"", b"\n\n", b"[]"])
def test_an_empty_file_is_no_success(other, content):
    with pytest.raises(TransferError, match="no trace"):
        other.transfer.load(content)


def test_a_newer_version_says_so(other):
    with pytest.raises(TransferError, match="version 99 is newer"):
        other.transfer.load(b'{"record": "memory", "version": 99}\n')


def test_secrets_are_redacted_on_the_way_in(other):
    secret = "sk-abcdefghijklmnopqrstuvwxyz123456"
    line = {
        "record": "episode",
        "episode": {"id": "a", "task": secret, "steps": [{"number": 1, "result": secret}]},
    }
    other.transfer.load(json.dumps(line).encode())
    assert secret.encode() not in b"".join(other.transfer.export())
