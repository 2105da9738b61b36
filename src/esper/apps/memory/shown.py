"""How records of the memory look as rows and lines. Knows neither terminal nor store."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from esper.memory.learning.merge import trust
from esper.memory.recall.answers import Answer, Recalled
from esper.memory.records import Episode, Item, Step

_LONG = 72

EPISODES = ("id", "started", "ended as", "score", "steps", "type", "domain", "task")
PATTERNS = ("id", "kind", "trust", "seen in", "used", "state", "says")
ANSWERS = ("id", "what", "total", "trust", "says")
STEPS = ("step", "tool", "action", "seconds", "result or error")


def moment(nanoseconds: int) -> str:
    """A time in the reader's own zone, to the minute."""
    return datetime.datetime.fromtimestamp(nanoseconds / 1e9).astimezone().strftime("%Y-%m-%d %H:%M")


def short(value: object) -> str:
    """One line of at most 72 characters."""
    line = " ".join(str(value).split())
    return line if len(line) <= _LONG else line[: _LONG - 1] + "…"


def episode_row(episode: Episode) -> list[Any]:
    """Columns: ``EPISODES``."""
    return [
        episode.id,
        moment(episode.started),
        ending(episode),
        episode.score.total if episode.score else None,
        episode.num_steps,
        episode.task_type,
        episode.domain,
        short(episode.task),
    ]


def ending(episode: Episode) -> str:
    """How it ended, or its state where it has not."""
    return episode.outcome.ending if episode.outcome else episode.state


def episode_fields(episode: Episode) -> dict[str, Any]:
    """What is known of an episode beside its steps; what is not known is left out."""
    outcome, score = episode.outcome, episode.score
    known = {
        "task": episode.task,
        "id": episode.id,
        "namespace": episode.namespace,
        "situation": _pairs(episode.situation),
        "tags": ", ".join(episode.tags),
        "started": moment(episode.started),
        "ended": moment(episode.ended) if episode.ended else "",
        "outcome": f"{ending(episode)}: {outcome.reason}" if outcome and outcome.reason else ending(episode),
        "verified": outcome.verified if outcome else None,
        "score": f"{score.total:.2f} = {_pairs(_parts(score))}" if score else "",
    }
    return {name: value for name, value in known.items() if value not in ("", None)}


def lessons(episode: Episode) -> list[str]:
    """The reflection, a line each."""
    found = episode.reflection
    if found is None:
        return []
    return [
        *(f"worked: {line}" for line in found.worked),
        *(f"failed: {line}" for line in found.failed),
        *(f"next time: {line}" for line in found.advice),
    ]


def step_row(step: Step) -> list[Any]:
    """Columns: ``STEPS``."""
    came = f"FAILED: {step.error}" if step.error is not None else "" if step.result is None else step.result
    return [step.number, step.tool, short(step.action), step.latency, short(came)]


def pattern_row(item: Item, now: int) -> list[Any]:
    """Columns: ``PATTERNS``; trust is the mean with its 90 % interval at the time ``now``."""
    tally = item.tally
    return [
        item.id,
        item.pattern,
        trust_words(item, now),
        tally.occurrences,
        tally.used,
        tally.state,
        item.lesson.text,
    ]


def trust_words(item: Item, now: int) -> str:
    """Mean and 90 % interval."""
    found = trust(item.tally, now)
    return f"{found.mean:.2f} ({found.lower:.2f} to {found.upper:.2f})"


def answer_row(answer: Answer) -> list[Any]:
    """Columns: ``ANSWERS``."""
    what = answer.item.pattern or answer.item.kind
    return [answer.id, what, answer.total, answer.trust.mean, short(answer.text)]


def answers_as_data(recalled: Recalled) -> dict[str, Any]:
    """A recall as plain data, with what each answer says and why it came at the top."""
    answers = [
        {"id": one.id, "text": one.text, "why": one.why, **msgspec.to_builtins(one)} for one in recalled
    ]
    return {
        "query": recalled.query,
        "exposure": recalled.exposure,
        "notice": recalled.notice,
        "answers": answers,
    }


def numbered(lines: Sequence[str]) -> Iterable[str]:
    """Lines with their numbers."""
    return (f"{number}. {line}" for number, line in enumerate(lines, start=1))


def whole(record: msgspec.Struct) -> dict[str, Any]:
    """A record as plain data with every field, defaults too."""
    return msgspec.structs.asdict(record)


def _parts(score: object) -> dict[str, Any]:
    return {name: f"{value:+.2f}" for name, value in msgspec.to_builtins(score).items()}


def _pairs(pairs: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in pairs.items())
