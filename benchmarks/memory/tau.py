"""Runs of tau-bench's airline agent (Yao et al., 2024; MIT) as sets in BEIR's layout: which runs were on the same task?

A question is the opening message of a run, which is all that an agent knows when it asks its memory. In
``tau-openings`` a document is the opening of a run too; in ``tau-runs`` it has the opening as its title, and what the
user said later and the calls of tools as its text. A run never answers itself.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.memory.beir import Document, Part, Question

NAME = "tau_airline_gpt4o.json"


def parts_of(path: Path) -> dict[str, Part]:
    """The two sets by name."""
    runs = json.loads(path.read_bytes())
    names = [f"task {run['task_id']} trial {run['trial']}" for run in runs]
    questions = [Question(name, _said(run)[0]) for name, run in zip(names, runs, strict=True)]
    same = {
        name: {
            other: 1
            for other, theirs in zip(names, runs, strict=True)
            if other != name and theirs["task_id"] == run["task_id"]
        }
        for name, run in zip(names, runs, strict=True)
    }
    openings = [Document(question.id, title=question.text) for question in questions]
    whole = [
        Document(name, text=_rest(run), title=_said(run)[0]) for name, run in zip(names, runs, strict=True)
    ]
    return {
        "tau-openings": Part("", openings, questions, same),
        "tau-runs": Part("", whole, questions, same),
    }


def _said(run: dict[str, Any]) -> list[str]:
    return [message["content"] for message in run["traj"] if message["role"] == "user"]


def _rest(run: dict[str, Any]) -> str:
    calls = [
        f"{call['function']['name']} {call['function']['arguments']}"
        for message in run["traj"]
        for call in message.get("tool_calls") or ()
    ]
    return " ".join([*_said(run)[1:], *calls])
