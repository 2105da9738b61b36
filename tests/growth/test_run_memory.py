"""What one run writes is there once, what it was told stays as it was told, and a broken memory stops nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from esper.errors import MemoryStoreError, RunError
from esper.growth.episodes import TRIAL, Done, Entry
from esper.growth.run_memory import RunMemory
from esper.memory import Memory
from esper.memory.records import Outcome

ACTION = "graft mlp"
CONTEXT = {"kind": "vector to vector", "grafts": 1}


@pytest.fixture
def memory():
    with Memory(":memory:") as opened:
        yield opened


def entry(key: str, *, won: bool = False, **context: int | str) -> Entry:
    return Entry(
        key=key,
        task=f"graft mlp, {key}",
        task_type="graft",
        context={**CONTEXT, **context},
        steps=(Done("growth shadow", "score", {"r2": 0.5}), Done(TRIAL, ACTION)),
        outcome=Outcome(ending="success" if won else "failure", reason="so", verified=float(won), value=0.5),
    )


def test_what_is_written_can_be_asked_for_with_the_runs_it_came_from(memory):
    first, second = RunMemory(memory, run="monday"), RunMemory(memory, run="tuesday")
    for number in range(3):
        first.write(entry(str(number)))
    second.write(entry("0"))
    RunMemory(memory, run="lucky").write(entry("0", won=True))
    answer = RunMemory(memory).ask(CONTEXT, ACTION)
    assert (answer.num_episodes, answer.num_matched) == (5, 2)
    assert 0 < answer.mean < answer.upper < 1
    asker = RunMemory(memory)
    asked = asker.ask({}, TRIAL)
    assert asked.num_episodes == 5
    assert set(asker.runs_of(asked.evidence)) == {"monday", "tuesday"}, "only what was refused is evidence"


def test_a_run_that_goes_on_writes_no_episode_twice(memory):
    RunMemory(memory, run="monday").write(entry("70 refused fc1 mlp"))
    again = RunMemory(memory, run="monday")
    again.write(entry("70 refused fc1 mlp"))
    again.write(entry("90 refused fc1 mlp"))
    RunMemory(memory, run="tuesday").write(entry("70 refused fc1 mlp"))
    assert len(memory.episodes()) == 3


def test_an_answer_stays_as_it_was_given_also_for_the_run_that_goes_on(memory, tmp_path: Path):
    run = RunMemory(memory, answers=tmp_path / "advice.jsonl")
    before = run.ask(CONTEXT, ACTION)
    run.write(entry("0"))
    assert run.ask(CONTEXT, ACTION) == before
    assert RunMemory(memory, answers=tmp_path / "advice.jsonl").ask(CONTEXT, ACTION) == before
    assert RunMemory(memory).ask(CONTEXT, ACTION) != before


def test_a_line_that_was_cut_by_a_kill_is_asked_for_again(memory, tmp_path: Path):
    path = tmp_path / "advice.jsonl"
    RunMemory(memory, answers=path).ask(CONTEXT, ACTION)
    path.write_bytes(path.read_bytes() + b'{"question": "half')
    run = RunMemory(memory, answers=path)
    run.ask({}, TRIAL)
    assert RunMemory(memory, answers=path).ask({}, TRIAL) is not None
    path.write_bytes(b"not at all\n")
    with pytest.raises(RunError, match="delete it"):
        RunMemory(memory, answers=path)


def test_a_memory_that_breaks_is_left_alone_with_one_warning(memory, monkeypatch):
    calls = []

    def broken(*_: object, **__: object) -> None:
        calls.append(1)
        raise MemoryStoreError("the disk is full")

    monkeypatch.setattr(memory, "episode", broken)
    run = RunMemory(memory)
    with pytest.warns(UserWarning, match="without its memory: the disk is full"):
        run.write(entry("0"))
    run.write(entry("1"))
    assert run.ask(CONTEXT, ACTION) is None
    assert len(calls) == 1
