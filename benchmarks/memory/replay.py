"""Runs of tau-bench's airline agent as episodes: what was asked, which tools were called, and whether it was right."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from esper.memory import Memory
from esper.memory.recall.answers import Recalled
from esper.memory.records import Episode

NAME = "tau_airline_gpt4o.json"
_LONGEST = 500


@dataclass(frozen=True)
class Call:
    """One call of a tool; ``error`` is what it answered when it failed."""

    tool: str
    parameters: dict[str, Any]
    answer: str

    @property
    def error(self) -> str | None:
        """The answer, where it is an error."""
        return self.answer if self.answer.startswith("Error") else None


@dataclass(frozen=True)
class Run:
    """One run: the user's opening message, the calls, and the reward (0 or 1) of the finished task."""

    task: int
    trial: int
    opening: str
    calls: tuple[Call, ...]
    reward: float


def read_runs(folder: Path) -> list[Run]:
    """Every run in ``folder``, in the file's order."""
    return [_run(told) for told in json.loads((folder / NAME).read_bytes())]


def shuffled(runs: Sequence[Run], seed: int) -> list[Run]:
    """By trial; within one the tasks come in an order of chance, since the runs carry no times."""
    order = list(runs)
    random.Random(seed).shuffle(order)
    return sorted(order, key=lambda run: run.trial)


def record(memory: Memory, run: Run) -> Episode:
    """The run as an episode; the benchmark's own check of the outcome is what was verified."""
    episode = memory.episode(run.opening, task_type="airline", trial=run.trial)
    for call in run.calls:
        answer = None if call.error else call.answer[:_LONGEST]
        episode.step(call.tool, parameters=call.parameters, result=answer, error=call.error)
    if run.reward > 0:
        return episode.succeed("as it should be", verified=1.0)
    return episode.fail("not as it should be", verified=0.0)


def found(recalled: Recalled) -> list[str]:
    """The ids of what was recalled, best first; what says the same follows the one that stands for it."""
    return [id for answer in recalled.answers for id in (answer.id, *answer.alike)]


def _run(told: dict[str, Any]) -> Run:
    messages = told["traj"]
    answers = {m["tool_call_id"]: m["content"] or "" for m in messages if m["role"] == "tool"}
    calls = [
        Call(
            tool=call["function"]["name"],
            parameters=json.loads(call["function"]["arguments"] or "{}"),
            answer=answers.get(call["id"], ""),
        )
        for message in messages
        for call in message.get("tool_calls") or ()
    ]
    opening = next(message["content"] for message in messages if message["role"] == "user")
    return Run(told["task_id"], told["trial"], opening, tuple(calls), float(told["reward"]))
