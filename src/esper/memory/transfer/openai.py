"""Conversations with tool calls as OpenAI's Chat Completions and Responses write them.

Each tool call with its answer is a step; the first word of the user is the task. Many evaluations wrap such
conversations with a reward: it is taken as an external judgement.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from esper.memory.records import Outcome, Step, Value
from esper.memory.transfer.trace import Reading, Sheet, Trace, content_key, each, nanoseconds

_LONGEST: Final = 2_000


class _Function(msgspec.Struct, frozen=True):
    name: str
    arguments: str | dict[str, Any] | None = None


class _Call(msgspec.Struct, frozen=True):
    function: _Function
    id: str = ""


class _Message(msgspec.Struct, frozen=True):
    """A message, or an item of the Responses interface (``type``, ``call_id``, ``output``)."""

    role: str = ""
    content: str | list[dict[str, Any]] | None = None
    tool_calls: list[_Call] | None = None
    tool_call_id: str | None = None
    type: str = "message"
    name: str | None = None
    call_id: str = ""
    arguments: str = ""
    output: Any = None


class _Choice(msgspec.Struct, frozen=True):
    message: _Message


class _Conversation(msgspec.Struct, frozen=True):
    messages: list[_Message] = []
    traj: list[_Message] = []
    input: str | list[_Message] = []
    output: list[_Message] = []
    choices: list[_Choice] = []
    id: str | None = None
    created: float | None = None
    created_at: float | None = None
    model: str | None = None
    metadata: dict[str, Any] | None = None
    reward: float | None = None
    success: bool | None = None


def read(sheet: Sheet) -> Reading:
    """One trace a conversation."""
    return each(sheet, lambda value: [_trace(value)])


def _trace(value: Any) -> Trace:
    told = msgspec.convert({"messages": value} if isinstance(value, list) else value, _Conversation)
    messages = _messages(told)
    task = next((text for message in messages if message.role == "user" and (text := _text(message))), "")
    if not task:
        raise ValueError("no message of a user says what was to be done")
    when = told.created if told.created is not None else told.created_at
    started = None if when is None else nanoseconds(when)
    return Trace(
        key=told.id or content_key(value),
        task=task,
        context=_context(told),
        tags=("openai",),
        started=started,
        steps=tuple(_steps(messages)),
        outcome=_outcome(told),
    )


def _messages(told: _Conversation) -> list[_Message]:
    asked = [_Message(role="user", content=told.input)] if isinstance(told.input, str) else told.input
    answered = [choice.message for choice in told.choices[:1]]
    return [*told.messages, *told.traj, *asked, *told.output, *answered]


def _text(message: _Message) -> str:
    if isinstance(message.content, list):
        return "\n".join(str(part["text"]) for part in message.content if "text" in part).strip()
    return (message.content or "").strip()


def _context(told: _Conversation) -> dict[str, Value]:
    plain = {
        name: value
        for name, value in (told.metadata or {}).items()
        if isinstance(value, str | int | float | bool)
    }
    return {**plain, **({"model": told.model} if told.model else {})}


def _steps(messages: Sequence[_Message]) -> Iterable[Step]:
    answers = {message.tool_call_id: _text(message) for message in messages if message.tool_call_id}
    answers |= {
        message.call_id: _told(message.output)
        for message in messages
        if message.type == "function_call_output"
    }
    number = 0
    for message in messages:
        calls = [(call.id, call.function.name, call.function.arguments) for call in message.tool_calls or ()]
        if message.type == "function_call":
            calls.append((message.call_id, message.name or "", message.arguments))
        for id, name, arguments in calls:
            number += 1
            yield _step(number, name, arguments, answers.get(id))


def _step(number: int, name: str, arguments: str | Mapping[str, Any] | None, answer: str | None) -> Step:
    wrong = answer is not None and _is_error(answer)
    told = None if answer is None else answer[:_LONGEST]
    return Step(
        number=number,
        tool=name,
        parameters=_parameters(arguments),
        result=None if wrong else told,
        error=told if wrong else None,
    )


def _parameters(arguments: str | Mapping[str, Any] | None) -> dict[str, Any] | None:
    """As the model wrote them, which need not be JSON."""
    if not arguments:
        return None
    if isinstance(arguments, Mapping):
        return dict(arguments)
    try:
        value = msgspec.json.decode(arguments)
    except msgspec.DecodeError:
        value = arguments
    return value if isinstance(value, dict) else {"arguments": value}


def _is_error(answer: str) -> bool:
    """Tools say so in words, or in a field."""
    if answer.lower().startswith("error"):
        return True
    if not answer.startswith("{"):
        return False
    try:
        value = msgspec.json.decode(answer)
    except msgspec.DecodeError:
        return False
    return isinstance(value, dict) and bool(value.get("error"))


def _told(output: Any) -> str:
    return output if isinstance(output, str) else msgspec.json.encode(output).decode()


def _outcome(told: _Conversation) -> Outcome | None:
    if told.reward is not None:
        judged = min(max(told.reward, 0.0), 1.0)
        if 0.0 < judged < 1.0:
            return Outcome(ending="partial", share=judged, verified=judged)
        return Outcome(ending="success" if judged else "failure", verified=judged)
    if told.success is not None:
        return Outcome(ending="success" if told.success else "failure")
    return None
