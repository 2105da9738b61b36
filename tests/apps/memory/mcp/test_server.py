"""What an agent can do, as the official client sees it."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager

import pytest
from mcp import Client, MCPError

from esper.apps.memory.mcp.server import make_server
from esper.memory import Memory
from esper.memory.recall.embeddings import CallableEmbedder

READING = {"patterns", "playbook", "explain", "stats", "analyse"}


class Agent:
    """A client that gives the structured result of a tool, or fails the test."""

    def __init__(self, client):
        self.client = client

    async def __call__(self, name, /, **arguments):
        result = await self.client.call_tool(name, arguments)
        assert not result.is_error, result.content
        return result.structured_content

    async def refused(self, name, /, **arguments):
        result = await self.client.call_tool(name, arguments)
        assert result.is_error
        return result.content[0].text

    async def solve(self, task="fix the flaky test", *, ending="success", verified=1.0):
        id = (await self("start_episode", task=task, task_type="bugfix", domain="ci"))["episode"]
        await self("log_step", episode=id, tool="pytest", error="2 failed")
        await self("log_step", episode=id, tool="editor", action="freeze the clock", result="passed")
        return await self("complete_episode", episode=id, ending=ending, verified=verified)


@asynccontextmanager
async def agent_of(memory):
    async with Client(make_server(memory)) as client:
        yield Agent(client)


@pytest.fixture
def memory(tmp_path):
    with Memory(tmp_path / "memory.db") as opened:
        yield opened


def asked(memory, questions):
    """Run ``await questions(agent)`` against a server of this memory."""

    async def run():
        async with agent_of(memory) as agent:
            return await questions(agent)

    return asyncio.run(run())


def test_an_agent_closes_the_loop(memory):
    async def questions(agent):
        first = await agent.solve()
        open_ = await agent("start_episode", task="another flaky test", task_type="bugfix", domain="ci")
        found = await agent("recall", query="flaky test", episode=open_["episode"])
        before = next(one for one in found["answers"] if one["item"] == first["episode"])
        await agent(
            "complete_episode",
            episode=open_["episode"],
            ending="failure",
            verified=0,
            used=[first["episode"]],
        )
        after = await agent("explain", item=first["episode"])
        assert after["trust"]["mean"] < before["trust"]["mean"]
        assert (after["used"], after["rewards"]) == (1, [0.0])

    asked(memory, questions)


def test_a_completed_episode_tells_score_and_lessons(memory):
    async def questions(agent):
        done = await agent.solve()
        assert (done["ending"], done["num_steps"], done["state"]) == ("success", 2, "completed")
        assert sum(done["score_parts"].values()) == pytest.approx(done["score"])
        assert done["failed"] == ["pytest: 2 failed"]

    asked(memory, questions)


def test_recall_context_and_feedback_share_one_exposure(memory):
    async def questions(agent):
        done = await agent.solve()
        found = await agent("recall", query="flaky test", kind="episode")
        assert [one["item"] for one in found["answers"]] == [done["episode"]]
        assert found["answers"][0]["why"]
        assert await agent("feedback", exposure=found["exposure"], used=[done["episode"]], reward=1) == {
            "num_items": 1
        }
        pack = await agent("context", task="flaky test", budget_tokens=80)
        assert 0 < pack["num_tokens"] <= 80
        assert "fix the flaky test (success)" in pack["text"]
        nothing = await agent("recall", query="submarine")
        assert (nothing["relevant"], nothing["answers"]) == (False, [])

    asked(memory, questions)


def test_patterns_playbook_and_recommendations_come_of_episodes(memory):
    async def questions(agent):
        assert (await agent("playbook", task_type="bugfix"))["steps"] == []
        episodes = {(await agent.solve())["episode"] for _ in range(3)}
        found = (await agent("patterns", kind="sequence"))["patterns"]
        assert {one["pattern"] for one in found} == {"sequence"}
        assert found[0]["actions"][-1].startswith("editor")
        proof = await agent("explain", item=found[0]["item"])
        assert {one["episode"] for one in proof["evidence"]} == episodes
        guide = await agent("playbook", task_type="bugfix", domain="ci")
        assert guide["steps"][-1].startswith("editor")
        choice = await agent(
            "recommend", actions=["editor", "prayer"], context={"domain": "ci"}, after="pytest failed"
        )
        assert [one["action"] for one in choice["actions"]] == ["editor", "prayer"]
        assert choice["actions"][0]["num_episodes"] == 3

    asked(memory, questions)


def test_another_agent_takes_an_episode_over(memory):
    async def questions(agent):
        id = (await agent("start_episode", task="move the house", context={"rooms": 4}))["episode"]
        await agent("log_step", episode=id, tool="van", error="no fuel")
        pack = await agent("hand_off", episode=id, note="keys are with the neighbour")
        for words in ("move the house", "rooms: 4", "neighbour", "FAILED: no fuel"):
            assert words in pack["text"]

    asked(memory, questions)


def test_notes_and_figures(memory):
    async def questions(agent):
        id = (await agent("note", text="the deploy key rotates on Mondays", tags=["ops"]))["item"]
        found = await agent("recall", query="deploy key", tags=["ops"])
        assert [one["item"] for one in found["answers"]] == [id]
        assert (await agent("stats"))["counts"]["notes"] == 1

    asked(memory, questions)


def test_an_agent_sees_how_it_goes_over_time(memory):
    for number in range(24):
        memory.episode("fix it", task_type="bugfix").partial(1.0 if number < 14 else 0.0)

    async def questions(agent):
        told = await agent("analyse", task_type="bugfix", horizon=3)
        assert (told["num_points"], len(told["forecast"]), told["latest"]) == (24, 3, [0.0] * 3)
        assert [(one["before"], one["after"]) for one in told["changes"]] == [(1.0, 0.0)]
        assert "too few" in await agent.refused("analyse", task_type="unknown")

    asked(memory, questions)


def test_a_recall_says_what_was_amiss_and_the_cache_is_told(tmp_path):
    def fail(_):
        raise ConnectionError("nobody there")

    with Memory(tmp_path / "memory.db", embedder=CallableEmbedder(fail, name="gone", dimension=3)) as memory:
        memory.note("the deploy key rotates on Mondays")

        async def questions(agent):
            told = await agent("recall", query="deploy key")
            assert len(told["answers"]) == 1
            assert "by words alone" in told["notice"]
            assert (await agent("stats"))["cache_hit_rate"] == 0.0

        asked(memory, questions)


def test_errors_on_purpose_reach_the_agent_in_their_own_words(memory):
    async def questions(agent):
        assert "there is no episode nowhere" in await agent.refused("log_step", episode="nowhere", tool="x")
        done = await agent.solve()
        assert "is completed" in await agent.refused("log_step", episode=done["episode"], tool="x")
        assert "there is no recall" in await agent.refused("feedback", exposure="x", used=["y"])
        assert "not in context" in await agent.refused(
            "start_episode", task="x", context={"namespace": "other"}
        )
        again = (await agent("start_episode", task="x"))["episode"]
        assert "leave out" in await agent.refused("recall", query="x", episode=again, kind="note")
        assert "there is no item" in await agent.refused("explain", item="x")
        assert "verified" in await agent.refused(
            "complete_episode", episode=done["episode"], ending="success", verified=2
        )

    asked(memory, questions)


def test_every_tool_and_prompt_says_what_it_is(memory):
    async def questions(agent):
        tools = (await agent.client.list_tools()).tools
        assert 10 <= len(tools) <= 15
        for tool in tools:
            assert len(tool.description) > 40
            assert tool.output_schema["type"] == "object"
            assert tool.annotations.destructive_hint is False
            assert tool.annotations.read_only_hint is (tool.name in READING)
        prompts = (await agent.client.list_prompts()).prompts
        assert {prompt.name for prompt in prompts} == {"work_on", "look_back", "take_over"}
        assert all(prompt.description and prompt.arguments[0].description for prompt in prompts)
        told = await agent.client.get_prompt("work_on", {"task": "paint the shed"})
        assert "paint the shed" in told.messages[0].content.text
        named = {tool.name for tool in tools}
        assert {
            word for word in ("context", "start_episode", "log_step", "recommend", "complete_episode")
        } <= named

    asked(memory, questions)


def test_reading_tools_change_nothing(memory):
    async def questions(agent):
        await agent.solve(), await agent.solve()
        before = memory.store.counts(), memory.store.stamp(None)
        item = (await agent("patterns"))["patterns"][0]["item"]
        for tool, arguments in (("playbook", {}), ("explain", {"item": item}), ("stats", {})):
            await agent(tool, **arguments)
        assert (memory.store.counts(), memory.store.stamp(None)) == before

    asked(memory, questions)


def test_episodes_and_patterns_are_resources(memory):
    async def questions(agent):
        done = await agent.solve()
        await agent.solve()
        item = (await agent("patterns"))["patterns"][0]["item"]
        templates = (await agent.client.list_resource_templates()).resource_templates
        assert {one.uri_template for one in templates} == {"memory://episode/{id}", "memory://pattern/{id}"}
        episode = await agent.client.read_resource(f"memory://episode/{done['episode']}")
        assert [step["tool"] for step in json.loads(episode.contents[0].text)["steps"]] == [
            "pytest",
            "editor",
        ]
        pattern = await agent.client.read_resource(f"memory://pattern/{item}")
        assert json.loads(pattern.contents[0].text)["occurrences"] == 2
        stats = await agent.client.read_resource("memory://stats")
        assert json.loads(stats.contents[0].text)["counts"]["episodes"] == 2
        metrics = await agent.client.read_resource("memory://metrics")
        assert 'complete_seconds_count{namespace="default"} 2' in metrics.contents[0].text.splitlines()
        with pytest.raises(MCPError, match="there is no episode nowhere"):
            await agent.client.read_resource("memory://episode/nowhere")

    asked(memory, questions)


def test_an_agent_sees_its_own_namespace_only(tmp_path):
    with Memory(tmp_path / "memory.db", namespace="other") as other:
        asked(other, lambda agent: agent.solve())
    with Memory(tmp_path / "memory.db") as memory:
        found = asked(memory, lambda agent: agent("recall", query="flaky test"))
    assert found["answers"] == []
