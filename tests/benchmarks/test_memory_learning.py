"""The replay predicts before it records, and the simulated agent's regret is that of its choices."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.memory import episodes, learning
from benchmarks.memory.learning import CHANCE, FIRST, Habits, life, replay
from benchmarks.memory.replay import NAME, read_runs, shuffled

TOOLS = {0: ("find", "book"), 1: ("find", "cancel"), 2: ("find", "change", "change")}
WISHES = {0: "book a flight to Boston", 1: "cancel my hotel in Rome", 2: "change the seat on my train"}


def told(task: int, trial: int) -> dict[str, Any]:
    calls = [
        {"id": f"c{i}", "type": "function", "function": {"name": name, "arguments": "{}"}}
        for i, name in enumerate(TOOLS[task])
    ]
    messages: list[dict[str, Any]] = [{"role": "user", "content": WISHES[task]}]
    for place, call in enumerate(calls):
        failed = call["function"]["name"] == "change" and place == 1
        messages.append({"role": "assistant", "content": None, "tool_calls": [call]})
        answer = "Error: seat 4 is taken" if failed else "done"
        messages.append({"role": "tool", "tool_call_id": call["id"], "content": answer})
    return {"task_id": task, "trial": trial, "reward": float(task != 1), "traj": messages}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    runs = [told(task, trial) for task in TOOLS for trial in range(4)]
    (tmp_path / NAME).write_text(json.dumps(runs))
    return tmp_path


def test_runs_come_by_trial_whatever_the_order(folder: Path) -> None:
    runs = shuffled(read_runs(folder), 3)
    assert [run.trial for run in runs] == sorted(run.trial for run in runs)
    assert runs[2].calls[0].tool == "find"
    errors = [call.error for run in runs for call in run.calls if call.error]
    assert errors == ["Error: seat 4 is taken"] * 4


def test_a_memory_foresees_what_habit_cannot_and_knows_nothing_of_the_first_run(folder: Path) -> None:
    guesses = replay(shuffled(read_runs(folder), 0))
    assert guesses[0].brier == guesses[0].brier_without
    later = [guess for guess in guesses if guess.trial > 0]
    assert sum(guess.tools for guess in later) > sum(guess.tools_without for guess in later)
    assert sum(guess.brier for guess in later) < sum(guess.brier_without for guess in later)


def test_habit_is_what_followed_most_often_ties_by_name() -> None:
    habits = Habits()
    habits.see(["a", "b"])
    habits.see(["a", "c"])
    assert (habits.guess("a"), habits.guess("b"), habits.guess("at the start")) == ("b", "", "a")


def test_following_advice_regrets_less_than_chance_and_a_life_can_be_lived_again() -> None:
    advised = [life(FIRST, seed, 120) for seed in range(2)]
    assert advised == [life(FIRST, seed, 120) for seed in range(2)]
    assert sum(one.regret for one in advised) < sum(life(CHANCE, seed, 120).regret for seed in range(2))


@pytest.mark.parametrize("script", [learning, episodes])
def test_a_quick_run_prints_its_table_and_stores_nothing(
    script: Any, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("benchmarks.table.store", lambda *_a, **_k: pytest.fail("stored"))
    monkeypatch.setattr(sys, "argv", ["benchmark", "--quick", "--data", str(folder)])
    script.main()
    assert "|" in capsys.readouterr().out
