"""Episodes as the Rust library ``rust-self-learning-memory`` serialises them (its ``Episode`` by serde)."""

from __future__ import annotations

import datetime
import re
from typing import Any, Literal

import msgspec

from esper.memory.records import Outcome, Step, Value
from esper.memory.transfer.trace import Reading, Sheet, Trace, each


class _Context(msgspec.Struct, frozen=True):
    language: str | None = None
    framework: str | None = None
    complexity: str | None = None
    domain: str = ""
    tags: list[str] = []


class _Success(msgspec.Struct, frozen=True):
    output: str = ""


class _Error(msgspec.Struct, frozen=True):
    message: str = ""


class _Done(msgspec.Struct, frozen=True):
    """Serde writes an enum with fields as an object of one key."""

    success: _Success | None = msgspec.field(default=None, name="Success")
    error: _Error | None = msgspec.field(default=None, name="Error")


class _Step(msgspec.Struct, frozen=True):
    step_number: int
    tool: str = ""
    action: str = ""
    timestamp: datetime.datetime | None = None
    parameters: Any = None
    result: _Done | Literal["Timeout"] | None = None
    latency_ms: float = 0.0
    tokens_used: int | None = None


class _Verdict(msgspec.Struct, frozen=True):
    verdict: str = ""
    completed: list[str] = []
    failed: list[str] = []


class _Reason(msgspec.Struct, frozen=True):
    reason: str = ""
    error_details: str | None = None


class _Outcome(msgspec.Struct, frozen=True):
    success: _Verdict | None = msgspec.field(default=None, name="Success")
    partial: _Verdict | None = msgspec.field(default=None, name="PartialSuccess")
    failure: _Reason | None = msgspec.field(default=None, name="Failure")
    abstained: _Reason | None = msgspec.field(default=None, name="Abstained")


class _Episode(msgspec.Struct, frozen=True):
    episode_id: str
    task_description: str
    start_time: datetime.datetime
    task_type: str = ""
    context: _Context = _Context()
    end_time: datetime.datetime | None = None
    steps: list[_Step] = []
    outcome: _Outcome | None = None
    tags: list[str] = []


class _Episodes(msgspec.Struct, frozen=True):
    episodes: list[_Episode]


def read(sheet: Sheet) -> Reading:
    """One trace an episode; a document is an episode, or an object that lists them under ``episodes``."""
    return each(sheet, lambda value: [_trace(one) for one in _episodes(value)])


def _episodes(value: Any) -> list[_Episode]:
    if isinstance(value, dict) and "episodes" in value:
        return msgspec.convert(value, _Episodes).episodes
    return [msgspec.convert(value, _Episode)]


def _trace(told: _Episode) -> Trace:
    about = told.context
    known: dict[str, str | None] = {
        "language": about.language,
        "framework": about.framework,
        "complexity": about.complexity.lower() if about.complexity else None,
    }
    context: dict[str, Value] = {name: value for name, value in known.items() if value}
    return Trace(
        key=told.episode_id,
        task=told.task_description,
        task_type=re.sub(r"(?<=[a-z])(?=[A-Z])", "_", told.task_type).lower(),
        domain=about.domain,
        context=context,
        tags=tuple(dict.fromkeys([*about.tags, *told.tags])),
        started=_nanoseconds(told.start_time),
        ended=_nanoseconds(told.end_time) if told.end_time else None,
        steps=tuple(_step(step) for step in sorted(told.steps, key=lambda one: one.step_number)),
        outcome=_ending(told.outcome) if told.outcome else None,
    )


def _step(told: _Step) -> Step:
    done = told.result
    good = done.success if isinstance(done, _Done) else None
    wrong = done.error if isinstance(done, _Done) else None
    return Step(
        number=told.step_number,
        tool=told.tool,
        action=told.action,
        parameters=told.parameters if isinstance(told.parameters, dict) and told.parameters else None,
        result=good.output if good else None,
        error=wrong.message if wrong else "timed out" if done == "Timeout" else None,
        latency=told.latency_ms / 1e3,
        tokens=told.tokens_used,
        at=_nanoseconds(told.timestamp) if told.timestamp else 0,
    )


def _ending(told: _Outcome) -> Outcome:
    if told.success:
        return Outcome(ending="success", reason=told.success.verdict)
    if told.partial:
        done, left = len(told.partial.completed), len(told.partial.failed)
        share = done / (done + left) if done + left else 0.5
        return Outcome(ending="partial", share=share, reason=told.partial.verdict)
    if told.failure:
        details = [told.failure.reason, told.failure.error_details or ""]
        return Outcome(ending="failure", reason=": ".join(part for part in details if part))
    if told.abstained:
        return Outcome(ending="abstained", reason=told.abstained.reason)
    raise ValueError("the outcome is none of Success, PartialSuccess, Failure and Abstained")


def _nanoseconds(when: datetime.datetime) -> int:
    aware = when if when.tzinfo else when.replace(tzinfo=datetime.UTC)
    return int(aware.timestamp() * 1e6) * 1_000
