"""The memory in asyncio."""

from __future__ import annotations

import asyncio
import threading

import pytest

from esper.apps.memory.awaited import Awaited, awaited_episode
from esper.memory import Memory
from esper.memory.recording import Recording


@pytest.fixture
def memory(tmp_path):
    with Memory(tmp_path / "memory.db") as opened:
        yield opened


def test_an_episode_is_recorded_and_recalled_without_blocking_the_loop(memory):
    threads = set()

    def spy(inner, *arguments, **options):
        threads.add(threading.current_thread())
        return Memory.recall(inner, *arguments, **options)

    async def work():
        awaited = Awaited(memory)
        async with awaited_episode(awaited, "fix the flaky test", domain="ci", depth=3) as episode:
            receipt = await episode(Recording.step, "pytest", "run", error="2 failed")
            assert receipt.durability == "process"
        found = await awaited(spy, "flaky test", k=1)
        return episode.wrapped.episode, found

    episode, found = asyncio.run(work())
    assert (episode.outcome.ending, episode.context) == ("success", {"depth": 3})
    assert list(found.ids) == [episode.id]
    assert threading.current_thread() not in threads


def test_an_exception_fails_the_episode_and_is_raised_again(memory):
    async def work():
        async with awaited_episode(Awaited(memory), "fix it"):
            raise KeyError("clock")

    with pytest.raises(KeyError):
        asyncio.run(work())
    assert memory.episodes()[0].outcome.reason == "KeyError: 'clock'"


def test_a_cancelled_episode_is_abandoned(memory):
    async def work():
        begun = asyncio.Event()

        async def inside():
            async with awaited_episode(Awaited(memory), "wait for it"):
                begun.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(inside())
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(work())
    assert memory.episodes()[0].state == "abandoned"


def test_an_outcome_that_was_given_stays(memory):
    async def work():
        async with awaited_episode(Awaited(memory), "fix it") as episode:
            await episode(Recording.partial, 0.5, "half of it")

    asyncio.run(work())
    assert memory.episodes()[0].outcome.share == 0.5
