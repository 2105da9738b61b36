"""Which tools and actions an episode chose: the experiences behind advice. Knows one episode."""

from __future__ import annotations

from typing import Final

from esper.memory.identity import signature_of
from esper.memory.records import Episode
from esper.memory.stores.store import Sighting

MAX_CHOICES: Final = 32
_LONGEST: Final = 100


def choices(episode: Episode, reward: float) -> list[Sighting]:
    """Each distinct tool and each distinct short action, as they stand; at most ``MAX_CHOICES``, the first ones."""
    first: dict[str, int] = {}
    for step in episode.steps:
        if step.tool:
            first.setdefault(step.tool, step.number)
        if step.action and len(step.action) <= _LONGEST:
            first.setdefault(step.action, step.number)
    space = episode.namespace
    return [
        Sighting(choice_signature(space, name), number, number, reward)
        for name, number in list(first.items())[:MAX_CHOICES]
    ]


def choice_signature(namespace: str, action: str) -> int:
    """The signature of an action, by its tool or by its own words, within a namespace."""
    return signature_of(namespace, "choice", action)


def decision_signature(namespace: str, condition: str, action: str) -> int:
    """The signature of the decision pattern ``condition`` → ``action``."""
    return signature_of(namespace, "decision", "", condition, action)
