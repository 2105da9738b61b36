"""What a prompt can take: lessons, patterns and pitfalls within a budget. Knows answers, no store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from esper.memory.recall.answers import Answer
from esper.memory.recall.context_lessons import lessons, pitfalls, told_of
from esper.memory.recall.context_lines import Line
from esper.memory.recall.context_patterns import patterns
from esper.memory.records import Episode

LESSONS: Final = "Lessons from before"
PATTERNS: Final = "What has worked"
PITFALLS: Final = "What to avoid"


class ContextPack(msgspec.Struct, frozen=True):
    """A text of at most the tokens that were asked for, the items that it is made of, and the exposure."""

    text: str
    num_tokens: int
    items: tuple[str, ...]
    exposure: str


def num_tokens(text: str) -> int:
    """An estimate from above for English: a token for every three bytes, rounded up."""
    return -(-len(text.encode()) // 3)


def pack(
    answers: Sequence[Answer], episodes: Mapping[str, Episode], budget: int, exposure: str
) -> ContextPack:
    """The lines of the best answers that fit, in sections; no line is cut. Empty when nothing fits.

    Episodes of one task make one line, patterns of one place another; nothing is advised in one line and warned of in
    another.
    """
    chosen: list[Line] = []
    for line in _ranked(answers, episodes):
        if num_tokens(_text([*chosen, line])) <= budget:
            chosen.append(line)
    text = _text(chosen)
    items = dict.fromkeys(item for line in chosen for item in line.items)
    return ContextPack(text, num_tokens(text), tuple(items), exposure)


def _ranked(answers: Sequence[Answer], episodes: Mapping[str, Episode]) -> list[Line]:
    found, hopeful, harmful = patterns(answers, worked=PATTERNS, avoid=PITFALLS)
    tasks = told_of(answers, episodes, hopeful=hopeful, harmful=harmful)
    notes = [
        Line(LESSONS, answer.text, (answer.id,), place)
        for place, answer in enumerate(answers)
        if answer.item.kind not in ("episode", "pattern")
    ]
    lines = [*notes, *found, *lessons(tasks, section=LESSONS), *pitfalls(tasks, section=PITFALLS)]
    distinct = {line.text: line for line in sorted(lines, key=lambda line: -line.place)}
    return sorted(distinct.values(), key=lambda line: line.place)


def _text(lines: Sequence[Line]) -> str:
    parts = []
    for section in (LESSONS, PATTERNS, PITFALLS):
        found = [f"- {line.text}" for line in lines if line.section == section]
        parts += [f"{section}:", *found, ""] if found else []
    return "\n".join(parts).strip()
