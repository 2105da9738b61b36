"""Traces that others recorded: OpenAI's conversations, OpenTelemetry's spans, the Rust library's episodes."""

from __future__ import annotations

import json

import pytest

from esper.errors import TransferError
from esper.memory.records import Outcome

START = 1_760_000_000


def _call(id, name, arguments):
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


def conversation(**more):
    messages = [
        {"role": "system", "content": "You are an airline's agent."},
        {"role": "user", "content": "cancel my flight"},
        {"role": "assistant", "content": None, "tool_calls": [_call("a", "find_booking", '{"user": "mia"}')]},
        {"role": "tool", "tool_call_id": "a", "content": "Error: no such user"},
        {"role": "assistant", "tool_calls": [_call("b", "ask_user", "not JSON")]},
        {"role": "tool", "tool_call_id": "b", "content": '{"user": "mia_li"}'},
    ]
    return {"messages": messages, **more}


def span(id, operation="", *, start=0, end=1, parent="", status=0, **attributes):
    about = {
        "gen_ai.operation.name": operation,
        **{name.replace("__", "."): v for name, v in attributes.items()},
    }
    kinds = {str: "stringValue", int: "intValue", float: "doubleValue", bool: "boolValue"}
    values = {key: {kinds[type(v)]: str(v) if type(v) is int else v} for key, v in about.items() if v != ""}
    return {
        "traceId": "t1",
        "spanId": id,
        "parentSpanId": parent,
        "name": f"span {id}",
        "startTimeUnixNano": str((START + start) * 10**9),
        "endTimeUnixNano": str((START + end) * 10**9),
        "status": {"code": status, "message": "broke" if status == 2 else ""},
        "attributes": [{"key": key, "value": value} for key, value in values.items()],
    }


def export(*spans):
    resource = {"attributes": [{"key": "service.name", "value": {"stringValue": "shop"}}]}
    return {"resourceSpans": [{"resource": resource, "scopeSpans": [{"spans": list(spans)}]}]}


def rust_episode(**more):
    return {
        "episode_id": "0b5c9d0e-7c58-4d5e-8a86-0c4bb0a2e6c5",
        "task_type": "CodeGeneration",
        "task_description": "write a parser",
        "context": {
            "language": "rust",
            "framework": None,
            "complexity": "Moderate",
            "domain": "compilers",
            "tags": ["a"],
        },
        "start_time": "2026-02-01T10:00:00.5Z",
        "end_time": "2026-02-01T10:05:00Z",
        "steps": [
            {
                "step_number": 2,
                "timestamp": "2026-02-01T10:02:00Z",
                "tool": "cargo",
                "action": "test",
                "parameters": {"release": True},
                "result": {"Success": {"output": "ok"}},
                "latency_ms": 1500,
                "tokens_used": 12,
                "metadata": {},
            },
            {
                "step_number": 1,
                "tool": "cargo",
                "action": "build",
                "parameters": {},
                "result": {"Error": {"message": "E0382"}},
            },
            {
                "step_number": 3,
                "tool": "fuzz",
                "action": "run",
                "parameters": {},
                "result": "Timeout",
                "latency_ms": 9,
            },
        ],
        "outcome": {"Success": {"verdict": "all tests pass", "artifacts": ["parser.rs"]}},
        "reward": None,
        "patterns": [],
        **more,
    }


def load(memory, format, *documents, **more):
    content = "\n".join(json.dumps(one) for one in documents).encode()
    loaded = memory.transfer.load(content, format, **more)
    return loaded, list(memory.get_many(loaded.taken).values())


def test_a_conversation_becomes_an_episode(memory):
    _, [found] = load(
        memory, "openai", conversation(created=START, model="gpt-4o", reward=1.0, metadata={"trial": 3})
    )
    assert (found.task, found.context) == ("cancel my flight", {"trial": 3, "model": "gpt-4o"})
    assert found.started == START * 10**9
    assert (found.outcome.ending, found.outcome.verified) == ("success", 1.0)
    first, second = found.steps
    assert (first.tool, first.parameters, first.error) == (
        "find_booking",
        {"user": "mia"},
        "Error: no such user",
    )
    assert (second.parameters, second.result, second.error) == (
        {"arguments": "not JSON"},
        '{"user": "mia_li"}',
        None,
    )
    assert memory.recall("cancel a flight").ids[0] == found.id


def test_items_of_the_responses_interface_become_steps(memory):
    response = {
        "id": "resp_1",
        "input": "what is the weather",
        "output": [
            {"type": "function_call", "call_id": "c", "name": "weather", "arguments": '{"city": "Bern"}'},
            {"type": "function_call_output", "call_id": "c", "output": '{"error": "no network"}'},
            {
                "type": "message",
                "role": "assistant",
                "content": [{"type": "output_text", "text": "I do not know"}],
            },
        ],
        "success": False,
    }
    _, [found] = load(memory, "openai", response)
    assert found.task == "what is the weather"
    assert [(step.tool, step.error) for step in found.steps] == [("weather", '{"error": "no network"}')]
    assert found.outcome.ending == "failure"


@pytest.mark.parametrize(
    ("reward", "ending"), [(0.0, "failure"), (0.5, "partial"), (1.0, "success"), (7.0, "success")]
)
def test_a_reward_is_an_external_judgement(memory, reward, ending):
    _, [found] = load(memory, "openai", conversation(reward=reward))
    assert (found.outcome.ending, found.outcome.verified) == (ending, min(reward, 1.0))


def test_a_trace_without_an_ending_teaches_nothing_unless_told(memory, other):
    loaded, [found] = load(memory, "openai", conversation())
    assert (loaded.num_unknown, found.state, found.outcome) == (1, "abandoned", None)
    loaded, [found] = load(other, "openai", conversation(), unsaid=Outcome(ending="success"))
    assert (loaded.num_unknown, found.outcome.ending) == (0, "success")


@pytest.mark.parametrize(
    "content",
    [
        json.dumps([conversation(id="x"), conversation(id="y")]),
        "\n".join(json.dumps(conversation(id=id), indent=None) for id in "xy"),
        json.dumps(conversation(id="x"), indent=2),
        json.dumps(conversation()["messages"]),
    ],
    ids=["array", "lines", "one", "bare messages"],
)
def test_arrays_lines_and_single_documents_are_understood(memory, content):
    loaded = memory.transfer.load(content.encode(), "openai")
    assert len(loaded.taken) == (2 if '"y"' in content else 1)


def test_the_same_trace_is_imported_once(memory):
    load(memory, "openai", conversation(reward=1.0))
    loaded, _ = load(memory, "openai", conversation(reward=1.0), conversation(reward=0.0))
    assert (len(loaded.taken), loaded.num_already) == (1, 1)


def test_imported_traces_are_learned_from(memory):
    load(memory, "openai", *(conversation(reward=1.0, id=str(number)) for number in range(4)))
    assert ("find_booking", "ask_user") in [item.lesson.actions for item in memory.patterns()]


def test_a_bad_conversation_is_named_and_nothing_is_taken(memory):
    with pytest.raises(TransferError, match=r"line 2: Expected .* at `\$\.messages`") as caught:
        load(memory, "openai", conversation(), {"messages": 5}, {"messages": []})
    assert "line 3: no message of a user" in str(caught.value)
    assert memory.episodes() == []
    loaded, found = load(memory, "openai", conversation(), {"messages": 5}, skip_bad=True)
    assert (len(found), [one.number for one in loaded.bad]) == (1, [2])


def test_spans_become_an_episode_however_they_are_spread(memory):
    said = json.dumps([{"role": "user", "parts": [{"type": "text", "content": "refund the order"}]}])
    tool = {"gen_ai__tool__name": "refund", "gen_ai__tool__call__arguments": '{"order": 7}'}
    root = span(
        "r", "invoke_agent", end=9, status=1, gen_ai__agent__name="clerk", gen_ai__input__messages=said
    )
    chat = span(
        "c",
        "chat",
        start=1,
        end=2,
        parent="r",
        gen_ai__usage__input_tokens=90,
        gen_ai__usage__output_tokens=10,
    )
    bad = span("b", "execute_tool", start=3, end=4, parent="r", status=2, **tool)
    good = span("g", "execute_tool", start=5, end=7, parent="r", gen_ai__tool__call__result="done", **tool)
    _, [found] = load(
        memory, "otel", export(good, bad), export(chat, span("x", start=2, parent="r")), export(root)
    )
    assert (found.task, found.context) == ("refund the order", {"agent": "clerk", "service": "shop"})
    assert (found.started, found.ended) == (START * 10**9, (START + 9) * 10**9)
    first, second = found.steps
    assert (first.tool, first.parameters, first.error, first.tokens) == ("refund", {"order": 7}, "broke", 100)
    assert (second.result, second.error, second.latency, second.tokens) == ("done", None, 2.0, None)
    assert found.outcome.ending == "success"


def test_an_evaluation_of_a_span_is_an_external_judgement(memory):
    root = span("r", "invoke_agent")
    value = {"doubleValue": 0.25}
    root["events"] = [
        {
            "name": "gen_ai.evaluation.result",
            "attributes": [{"key": "gen_ai.evaluation.score.value", "value": value}],
        }
    ]
    _, [found] = load(memory, "otel", export(root))
    assert (found.outcome.ending, found.outcome.verified) == ("failure", 0.25)


def test_a_failed_root_fails_and_foreign_traces_are_left_out(memory):
    _, [found] = load(
        memory, "otel", export(span("r", "invoke_agent", status=2)), export({**span("s"), "traceId": "t2"})
    )
    assert (found.task, found.outcome.ending, found.outcome.reason) == ("span r", "failure", "broke")
    with pytest.raises(TransferError, match="no trace of this format"):
        load(memory, "otel", export(span("s")))


def test_an_episode_of_the_rust_library_comes_whole(memory):
    _, [found] = load(memory, "rust", rust_episode())
    assert (found.task, found.task_type, found.domain, found.tags) == (
        "write a parser",
        "code_generation",
        "compilers",
        ("a",),
    )
    assert found.context == {"language": "rust", "complexity": "moderate"}
    assert [(step.number, step.action, step.error) for step in found.steps] == [
        (1, "build", "E0382"),
        (2, "test", None),
        (3, "run", "timed out"),
    ]
    assert (found.steps[1].latency, found.steps[1].tokens, found.steps[1].result) == (1.5, 12, "ok")
    assert (found.outcome.ending, found.outcome.reason) == ("success", "all tests pass")
    assert found.ended - found.started == 299_500_000_000


@pytest.mark.parametrize(
    ("outcome", "ending", "share"),
    [
        (
            {"PartialSuccess": {"verdict": "v", "completed": ["a"], "failed": ["b", "c", "d"]}},
            "partial",
            0.25,
        ),
        ({"Failure": {"reason": "no", "error_details": "line 4"}}, "failure", 0.0),
        (
            {"Abstained": {"reason": "no", "stopped_at_step": 1, "infeasibility_signals": []}},
            "abstained",
            0.0,
        ),
    ],
)
def test_every_outcome_of_the_rust_library_has_its_ending(memory, outcome, ending, share):
    _, [found] = load(memory, "rust", {"episodes": [rust_episode(outcome=outcome)]})
    assert (found.outcome.ending, found.outcome.share) == (ending, share)


def test_an_unknown_outcome_of_the_rust_library_is_a_bad_line(memory):
    with pytest.raises(TransferError, match="line 1: the outcome is none of"):
        load(memory, "rust", rust_episode(outcome={"Exploded": {}}))
