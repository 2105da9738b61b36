"""Spans as OpenTelemetry exports them (OTLP/JSON), with the ``gen_ai`` attributes of its semantic conventions.

A trace is an episode, a tool's span a step; the tokens of a model's span go to the next step.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from esper.memory.records import Outcome, Step, Value
from esper.memory.transfer.trace import BadLine, Reading, Sheet, Trace

_OK: Final = (1, "STATUS_CODE_OK")
_ERROR: Final = (2, "STATUS_CODE_ERROR")
_TASK: Final = ("gen_ai.input.messages", "gen_ai.prompt.0.content", "gen_ai.prompt", "input.value")
_SITUATION: Final = {
    "gen_ai.agent.name": "agent",
    "gen_ai.request.model": "model",
    "gen_ai.provider.name": "provider",
    "service.name": "service",
}


class _Value(msgspec.Struct, frozen=True, rename="camel"):
    string_value: str | None = None
    int_value: int | str | None = None
    double_value: float | None = None
    bool_value: bool | None = None
    array_value: dict[str, Any] | None = None
    kvlist_value: dict[str, Any] | None = None

    def plain(self) -> Value:
        """A text for what is made of several."""
        if self.int_value is not None:
            return int(self.int_value)
        for value in (self.string_value, self.bool_value, self.double_value):
            if value is not None:
                return value
        return msgspec.json.encode(self.array_value or self.kvlist_value or {}).decode()


class _Attribute(msgspec.Struct, frozen=True):
    key: str
    value: _Value = _Value()


class _Status(msgspec.Struct, frozen=True):
    code: int | str = 0
    message: str = ""


class _Event(msgspec.Struct, frozen=True):
    name: str = ""
    attributes: list[_Attribute] = []


class _Span(msgspec.Struct, frozen=True, rename="camel"):
    trace_id: str
    span_id: str
    name: str = ""
    parent_span_id: str = ""
    start_time_unix_nano: int | str = 0
    end_time_unix_nano: int | str = 0
    attributes: list[_Attribute] = []
    events: list[_Event] = []
    status: _Status = _Status()

    @property
    def start(self) -> int:
        """OTLP writes 64-bit integers as texts."""
        return int(self.start_time_unix_nano)

    @property
    def end(self) -> int:
        """As ``start``."""
        return int(self.end_time_unix_nano)


class _Scope(msgspec.Struct, frozen=True):
    spans: list[_Span] = []


class _Resource(msgspec.Struct, frozen=True):
    attributes: list[_Attribute] = []


class _ResourceSpans(msgspec.Struct, frozen=True, rename="camel"):
    scope_spans: list[_Scope] = []
    resource: _Resource = _Resource()


class _Export(msgspec.Struct, frozen=True, rename="camel"):
    resource_spans: list[_ResourceSpans]


class _Known(msgspec.Struct, frozen=True):
    """A span with its attributes as a mapping, the resource's among them."""

    span: _Span
    about: dict[str, Value]

    @property
    def operation(self) -> str:
        """``chat``, ``execute_tool``, ``invoke_agent`` ...; empty for spans of other kinds."""
        return str(self.about.get("gen_ai.operation.name", ""))


def read(sheet: Sheet) -> Reading:
    """One trace a trace id, over however many documents its spans are spread; those without ``gen_ai`` are left out."""
    grouped: dict[str, list[_Known]] = defaultdict(list)
    bad = list(sheet.bad)
    for document in sheet.documents:
        try:
            for known in _spans(msgspec.convert(document.value, _Export)):
                grouped[known.span.trace_id].append(known)
        except ValueError as error:
            bad.append(BadLine(document.number, str(error)))
    traces = [_trace(id, spans) for id, spans in grouped.items() if any(known.operation for known in spans)]
    return Reading(tuple(traces), tuple(sorted(bad, key=lambda one: one.number)))


def _spans(export: _Export) -> Iterable[_Known]:
    for resource in export.resource_spans:
        shared = _mapping(resource.resource.attributes)
        for scope in resource.scope_spans:
            yield from (_Known(span, {**shared, **_mapping(span.attributes)}) for span in scope.spans)


def _mapping(attributes: Sequence[_Attribute]) -> dict[str, Value]:
    return {one.key: one.value.plain() for one in attributes}


def _trace(id: str, spans: Sequence[_Known]) -> Trace:
    ordered = sorted(spans, key=lambda known: (known.span.start, known.span.span_id))
    ids = {known.span.span_id for known in ordered}
    root = next((known for known in ordered if known.span.parent_span_id not in ids), ordered[0])
    about = {**next((known.about for known in ordered if known.operation), {}), **root.about}
    return Trace(
        key=id,
        task=_task(root, ordered),
        context={name: about[key] for key, name in _SITUATION.items() if key in about},
        tags=("otel",),
        started=root.span.start or None,
        ended=root.span.end or None,
        steps=tuple(_steps(ordered)),
        outcome=_outcome(root, ordered),
    )


def _task(root: _Known, spans: Sequence[_Known]) -> str:
    """What the user said first, else the name of the outermost span."""
    for known in (root, *spans):
        for key in _TASK:
            text = _said(known.about.get(key))
            if text:
                return text
    return root.span.name or "unnamed"


def _said(value: Value | None) -> str:
    """The conventions write messages as JSON: a list of roles with parts."""
    text = "" if value is None else str(value).strip()
    if not text.startswith("["):
        return text
    try:
        messages = msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text
    for message in messages:
        if isinstance(message, dict) and message.get("role") == "user":
            parts = message.get("parts") or [{"content": message.get("content")}]
            return "\n".join(
                str(part["content"]) for part in parts if isinstance(part, dict) and part.get("content")
            )
    return ""


def _steps(spans: Sequence[_Known]) -> Iterable[Step]:
    number, tokens = 0, 0
    for known in spans:
        tokens += _tokens(known.about)
        failed_chat = known.operation == "chat" and known.span.status.code in _ERROR
        if known.operation == "execute_tool" or failed_chat:
            number += 1
            yield _step(number, known, tokens)
            tokens = 0


def _tokens(about: Mapping[str, Value]) -> int:
    kinds = ("gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens")
    return sum(int(about[kind]) for kind in kinds if kind in about)


def _step(number: int, known: _Known, tokens: int) -> Step:
    about, span = known.about, known.span
    failed = span.status.code in _ERROR
    reason = span.status.message or str(about.get("error.type", "")) or "failed"
    return Step(
        number=number,
        tool=str(about.get("gen_ai.tool.name") or known.operation),
        action=str(about.get("gen_ai.tool.description", "")),
        parameters=_object(about.get("gen_ai.tool.call.arguments")),
        result=None if failed else about.get("gen_ai.tool.call.result"),
        error=reason if failed else None,
        latency=(span.end - span.start) / 1e9 if span.end >= span.start else None,
        tokens=tokens or None,
        at=span.start,
    )


def _object(value: Value | None) -> dict[str, Any] | None:
    if value is None:
        return None
    try:
        found = msgspec.json.decode(str(value))
    except msgspec.DecodeError:
        found = value
    return found if isinstance(found, dict) else {"arguments": found}


def _outcome(root: _Known, spans: Sequence[_Known]) -> Outcome | None:
    """The outermost span's status; an evaluation's score in [0, 1] is an external judgement."""
    verified = _evaluated(spans)
    if root.span.status.code in _ERROR:
        return Outcome(ending="failure", reason=root.span.status.message, verified=verified)
    if root.span.status.code in _OK or verified is not None:
        good = verified is None or verified >= 0.5
        return Outcome(ending="success" if good else "failure", verified=verified)
    return None


def _evaluated(spans: Sequence[_Known]) -> float | None:
    events = [
        event for known in spans for event in known.span.events if event.name == "gen_ai.evaluation.result"
    ]
    for event in reversed(events):
        score = _mapping(event.attributes).get("gen_ai.evaluation.score.value")
        if isinstance(score, int | float) and 0.0 <= score <= 1.0:
            return float(score)
    return None
