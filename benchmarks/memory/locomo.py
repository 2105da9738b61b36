"""LoCoMo (Maharana et al., 2024; CC BY-NC 4.0) as sets in BEIR's layout: a turn is a document, its speaker the title.

A conversation is a set of its own, a session a thread. Questions of categories 1 to 4 that name evidence are kept:
multi-hop, temporal, open-domain, single-hop. Category 5 has no answer.
"""

from __future__ import annotations

import datetime
import itertools
import json
import re
from pathlib import Path
from typing import Any

from benchmarks.memory.beir import Document, Metadata, Part, Question

NAME = "locomo10.json"
TUNED_ON = 5
CATEGORIES = {1: "multi-hop", 2: "temporal", 3: "open-domain", 4: "single-hop"}


def parts_of(path: Path) -> list[Part]:
    """The ten conversations; the first five under ``tuned-on/``, the others under ``held-out/``."""
    conversations = json.loads(path.read_bytes())
    return [
        _part(f"{'tuned-on' if place < TUNED_ON else 'held-out'}/{one['sample_id']}", one)
        for place, one in enumerate(conversations)
    ]


def _part(name: str, one: dict[str, Any]) -> Part:
    documents = [turn for session in _sessions(one["conversation"]) for turn in session]
    known = {document.id for document in documents}
    questions, grades = [], {}
    for number, asked in enumerate(one["qa"]):
        evidence = [turn for turn in re.findall(r"D\d+:\d+", " ".join(asked["evidence"])) if turn in known]
        if asked["category"] in CATEGORIES and evidence:
            category = CATEGORIES[asked["category"]]
            questions.append(Question(f"q{number}", asked["question"], Metadata(category=category)))
            grades[f"q{number}"] = dict.fromkeys(evidence, 1)
    return Part(name, documents, questions, grades)


def _sessions(conversation: dict[str, Any]) -> list[list[Document]]:
    sessions: list[list[Document]] = []
    for number in itertools.count(1):
        if f"session_{number}_date_time" not in conversation:
            return sessions
        day = _day(conversation[f"session_{number}_date_time"])
        metadata = Metadata(thread=f"session {number}", date=day.isoformat())
        turns = conversation.get(f"session_{number}", [])
        sessions.append([Document(turn["dia_id"], turn["text"], turn["speaker"], metadata) for turn in turns])
    raise AssertionError("itertools.count ends")


def _day(text: str) -> datetime.date:
    # "1:56 pm on 8 May, 2023"
    return datetime.datetime.strptime(text.split(" on ")[1], "%d %B, %Y").date()
