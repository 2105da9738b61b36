"""How steps, errors and situations are named, so that the same thing has the same name. Knows no pattern."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Final

from esper.memory.records import Episode, Step

_WORDS: Final = 12
_LENGTH: Final = 160
_VARIABLE = re.compile(
    r"""
    (?P<quoted>"[^"]{1,200}"|'[^']{1,200}'|`[^`]{1,200}`)
    | (?P<path>(?:[a-z]:)?(?:[\w.~-]+)?(?:[/\\][\w.@~-]+)+)
    | (?P<hex>0x[0-9a-f]+|\b(?=[a-f]*\d)[0-9a-f-]{8,}\b)
    | (?P<number>\d+(?:[.,:]\d+)*)
    """,
    re.VERBOSE,
)


@lru_cache(maxsize=4_096)
def normalised(text: str, *, words: int = _WORDS) -> str:
    """Lower case, one line, at most ``words`` words; numbers, paths, quotes and hex become a word for it."""
    line = text.strip().partition("\n")[0][:_LENGTH].lower()
    return " ".join(_VARIABLE.sub(_kind_of, line).split()[:words])


def _kind_of(match: re.Match[str]) -> str:
    return f"<{match.lastgroup}>"


def error_signature(error: str) -> str:
    """What two occurrences of an error share: the last line of a traceback, else the first line, normalised."""
    lines = error.strip().splitlines()
    line = lines[-1] if lines and lines[0].startswith("Traceback") else (lines or [""])[0]
    return normalised(line)


def failing(step: Step) -> str:
    """The condition in words after a step with an error: ``after pytest failed with <number> failed``."""
    return f"after {symbol(step)} failed with {error_signature(step.error or '')}"


def symbol(step: Step) -> str:
    """The name of a step in a sequence: its tool, else its action."""
    return step.tool or normalised(step.action, words=3) or "step"


def deed(step: Step) -> str:
    """The name of a step with what was done: ``tool: action``."""
    return _deed(step.tool, step.action)


@lru_cache(maxsize=4_096)
def _deed(tool: str, action: str) -> str:
    words = normalised(action)
    return f"{tool}: {words}" if tool and words else tool or words or "step"


Run = tuple[str, int, int]
"""A name with the numbers of its first and last step."""


def runs(names: Sequence[str], steps: Sequence[Step]) -> list[Run]:
    """The steps by these names; the same name in a row counts once."""
    found: list[Run] = []
    last = ""
    for name, step in zip(names, steps, strict=True):
        number = step.number
        if name == last:
            found[-1] = (name, found[-1][1], number)
        else:
            found.append((name, number, number))
            last = name
    return found


def scope(episode: Episode) -> str:
    """The kind of task: ``type in domain``, or as much as is known."""
    return scope_of(episode.task_type, episode.domain)


def scope_of(task_type: str, domain: str) -> str:
    """The kind of task by its two names, either of which may be empty."""
    return " in ".join(part for part in (task_type, domain) if part)


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """Distinct names in the order of their first appearance."""
    return tuple(dict.fromkeys(names))
