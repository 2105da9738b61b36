"""The terms of a rank, in the open. Knows items and a question, no store."""

from __future__ import annotations

from typing import Final

import msgspec

from esper.memory.learning.trust import decay, trust_of
from esper.memory.recall.answers import Answer, answers_of
from esper.memory.records import Item
from esper.memory.stores.store import Hit

RECENT: Final = 30 * 86_400 * 10**9
"""Nanoseconds after which the recency term has halved."""


class Weights(msgspec.Struct, frozen=True, kw_only=True):
    """What each term adds at most. ``trust`` runs from minus to plus half its weight."""

    text: float = 1.0
    trust: float = 0.5
    context: float = 0.1
    score: float = 0.05
    recency: float = 0.05


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked, in which situation, and when."""

    text: str
    now: int
    task_type: str = ""
    domain: str = ""


def ranked(hits: list[Hit], question: Question, weights: Weights) -> tuple[Answer, ...]:
    """Hits as answers, best first; the text term is the share of the best hit's relevance."""
    best = max((hit.relevance for hit in hits), default=0.0)
    told = []
    for hit in hits:
        text = hit.relevance / best if best > 0 else 0.0
        told.append((hit.item, parts(hit.item, text, question, weights)))
    return answers_of(told)


def parts(item: Item, text: float, question: Question, weights: Weights) -> dict[str, float]:
    """The terms of one item; ``text`` lies in [0, 1]."""
    age = max(question.now - item.touched, 0)
    trust = trust_of(decay(item.successes, age), decay(item.failures, age))
    same = (item.task_type, item.domain)
    asked = (question.task_type, question.domain)
    matched = sum(1 for mine, theirs in zip(same, asked, strict=True) if theirs and mine == theirs)
    return {
        "text": weights.text * text,
        "trust": weights.trust * (trust.hopeful - 0.5),
        "context": weights.context * matched / 2,
        "score": weights.score * (item.score if item.score is not None else 0.5),
        "recency": weights.recency * 0.5 ** (age / RECENT),
    }
