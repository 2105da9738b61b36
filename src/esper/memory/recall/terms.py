"""The terms of a rank, in the open. Knows items and a question, no store."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from esper.memory.learning.merge import trust
from esper.memory.recall.answers import Answer
from esper.memory.records import Item


class Weights(msgspec.Struct, frozen=True, kw_only=True):
    """What each term adds at most; ``trust`` runs from minus to plus half its weight, ``context`` is for who names one.

    What each is worth: ``benchmarks.memory.ranking_terms``.
    """

    text: float = 1.0
    trust: float = 0.25
    context: float = 0.1
    score: float = 0.1


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked, in which situation, and when."""

    text: str
    now: int
    task_type: str = ""
    domain: str = ""


def ranked(found: Iterable[tuple[Item, float]], question: Question, weights: Weights) -> tuple[Answer, ...]:
    """Items, each with what text says for it in [0, 1], as answers: best first, ties by id."""
    told = [answer(item, text, question, weights) for item, text in found]
    return tuple(sorted(told, key=lambda one: (-one.total, one.id)))


def without_repeats(answers: Iterable[Answer]) -> tuple[Answer, ...]:
    """The best answer of each that say the same; it names the others."""
    first: dict[tuple[str, ...], Answer] = {}
    others: dict[tuple[str, ...], list[str]] = {}
    for one in answers:
        key = (one.item.kind, one.item.lesson.title.casefold(), one.text.strip().casefold())
        if first.setdefault(key, one) is not one:
            others.setdefault(key, []).append(one.id)
    return tuple(
        msgspec.structs.replace(one, alike=tuple(others[key])) if key in others else one
        for key, one in first.items()
    )


def answer(item: Item, text: float, question: Question, weights: Weights) -> Answer:
    """One item with its terms; ``text`` lies in [0, 1]."""
    belief = trust(item.tally, question.now)
    same = (item.task_type, item.domain)
    asked = (question.task_type, question.domain)
    matched = sum(1 for mine, theirs in zip(same, asked, strict=True) if theirs and mine == theirs)
    parts = {
        "text": weights.text * text,
        "trust": weights.trust * (belief.hopeful - 0.5),
        "context": weights.context * matched / 2,
        "score": weights.score * (item.score if item.score is not None else 0.5),
    }
    return Answer(item, sum(parts.values()), parts, belief)
