"""What a prompt can take: lessons, patterns and pitfalls within a budget. Knows answers, no store."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import msgspec

from esper.memory.recall.answers import Answer
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


class _Line(msgspec.Struct, frozen=True):
    section: str
    text: str
    item: str


def num_tokens(text: str) -> int:
    """An estimate from above for English: a token for every three bytes, rounded up."""
    return -(-len(text.encode()) // 3)


def pack(
    answers: Sequence[Answer], episodes: Mapping[str, Episode], budget: int, exposure: str
) -> ContextPack:
    """The lines of the best answers that fit, in sections; no line is cut. Empty when nothing fits."""
    chosen: list[_Line] = []
    for line in _distinct(answers, episodes):
        if num_tokens(_text([*chosen, line])) <= budget:
            chosen.append(line)
    text = _text(chosen)
    return ContextPack(text, num_tokens(text), tuple(dict.fromkeys(line.item for line in chosen)), exposure)


def _distinct(answers: Sequence[Answer], episodes: Mapping[str, Episode]) -> Iterator[_Line]:
    met: set[str] = set()
    for answer in answers:
        for line in _lines(answer, episodes.get(answer.id)):
            if line.text not in met:
                met.add(line.text)
                yield line


def _lines(answer: Answer, episode: Episode | None) -> Iterator[_Line]:
    if episode is None:
        warning = answer.item.pattern == "antipattern"
        section = PITFALLS if warning else PATTERNS if answer.item.kind == "pattern" else LESSONS
        yield _Line(section, answer.text, answer.id)
        return
    told = episode.reflection
    ending = episode.outcome.ending if episode.outcome else episode.state
    advice = "; ".join(told.advice) if told else ""
    yield _Line(
        LESSONS, f"{episode.task} ({ending}): {advice}" if advice else f"{episode.task} ({ending})", answer.id
    )
    for failure in told.failed if told else ():
        yield _Line(PITFALLS, failure, answer.id)


def _text(lines: Sequence[_Line]) -> str:
    parts = []
    for section in (LESSONS, PATTERNS, PITFALLS):
        found = [f"- {line.text}" for line in lines if line.section == section]
        parts += [f"{section}:", *found, ""] if found else []
    return "\n".join(parts).strip()
