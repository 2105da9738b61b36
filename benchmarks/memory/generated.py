"""Episodes made by numbers: words as uneven as in a language, a few kinds of task, ways of working that recur.

Number n is the same episode everywhere. Knows no store.
"""

from __future__ import annotations

import random
from bisect import bisect
from itertools import accumulate, product

import msgspec

from esper.memory import Memory
from esper.memory.recording import Recording

NUM_STEPS = 10
_SYLLABLES = ("ba", "co", "di", "fu", "ga", "he", "ki", "lo", "mi", "nu", "pa", "re", "si", "to", "va", "zu")
WORDS = tuple("".join(parts) for parts in product(_SYLLABLES, repeat=3))
"""4,096 words; the nth is as frequent as 1/n."""
_FREQUENCY = tuple(accumulate(1 / place for place in range(1, len(WORDS) + 1)))
DOMAINS = ("backend", "frontend", "data", "build", "docs")
TYPES = ("fix", "feature", "refactor", "review")
TOOLS = ("search", "read", "edit", "run", "test", "shell", "browse", "commit")
ERRORS = (
    "AssertionError: 2 != 3",
    "FileNotFoundError: no such file",
    "TimeoutError after 30 s",
    "ImportError",
)


class Told(msgspec.Struct, frozen=True):
    """What one episode is about, what was done, and whether it succeeded."""

    task: str
    task_type: str
    domain: str
    steps: tuple[tuple[str, str, str | None], ...]
    succeeded: bool


def told(number: int) -> Told:
    """Episode ``number``: one of 40 ways of working, with a step in ten of its own and an error now and then."""
    dice = random.Random(number)
    way = random.Random(dice.randrange(40))
    steps = []
    for _ in range(NUM_STEPS):
        usual = (way.choice(TOOLS), f"{way.choice(('look', 'change', 'check'))} {words(way, 1)}")
        tool, action = usual if dice.random() < 0.9 else (dice.choice(TOOLS), f"try {words(dice, 1)}")
        steps.append((tool, action, dice.choice(ERRORS) if dice.random() < 0.1 else None))
    kind, domain = way.choice(TYPES), way.choice(DOMAINS)
    return Told(
        f"{kind} the {words(dice, 6)} of {words(dice, 2)}", kind, domain, tuple(steps), dice.random() < 0.7
    )


def words(dice: random.Random, number: int) -> str:
    """So many words, frequent ones more often."""
    drawn = (bisect(_FREQUENCY, dice.random() * _FREQUENCY[-1]) for _ in range(number))
    return " ".join(WORDS[min(place, len(WORDS) - 1)] for place in drawn)


def question(number: int) -> str:
    """Question ``number``, in the words of some episode or other."""
    return words(random.Random(-1 - number), 5)


def recorded(memory: Memory, one: Told) -> Recording:
    """The episode in a memory, with all its steps, not yet ended."""
    episode = memory.episode(one.task, task_type=one.task_type, domain=one.domain)
    for tool, action, error in one.steps:
        episode.step(tool, action, error=error, latency=0.1, tokens=100)
    return episode


def ended(episode: Recording, one: Told) -> str:
    """End it as it went; its id."""
    (episode.succeed if one.succeeded else episode.fail)("as it went")
    return episode.id


def fill(memory: Memory, numbers: range) -> list[str]:
    """Record and end episodes; their ids."""
    made = []
    for number in numbers:
        one = told(number)
        made.append(ended(recorded(memory, one), one))
    return made
