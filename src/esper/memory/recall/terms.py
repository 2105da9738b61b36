"""The terms of a rank, in the open. Knows items and a question, no store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from esper.memory.learning.merge import trust
from esper.memory.recall.answers import Answer
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


def ranked(hits: Sequence[Hit], question: Question, weights: Weights) -> tuple[Answer, ...]:
    """Hits as answers, best first, ties by id; the text term is the share of the best hit's relevance."""
    best = max((hit.relevance for hit in hits), default=0.0)
    told = [answer(hit.item, hit.relevance / best if best > 0 else 0.0, question, weights) for hit in hits]
    return tuple(sorted(told, key=lambda one: (-one.total, one.id)))


def answer(item: Item, text: float, question: Question, weights: Weights) -> Answer:
    """One item with its terms; ``text`` lies in [0, 1]."""
    belief = trust(item.tally, question.now)
    age = max(question.now - item.tally.touched, 0)
    same = (item.task_type, item.domain)
    asked = (question.task_type, question.domain)
    matched = sum(1 for mine, theirs in zip(same, asked, strict=True) if theirs and mine == theirs)
    parts = {
        "text": weights.text * text,
        "trust": weights.trust * (belief.hopeful - 0.5),
        "context": weights.context * matched / 2,
        "score": weights.score * (item.score if item.score is not None else 0.5),
        "recency": weights.recency * 0.5 ** (age / RECENT),
    }
    return Answer(item, sum(parts.values()), parts, belief)
