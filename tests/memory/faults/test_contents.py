"""Whatever a text holds, and however much of it there is, it is stored, found and given back.

An episode of 100,000 steps is made in the suite; ``ESPER_MANY_STEPS=1000000 pytest
tests/memory/faults/test_contents.py`` makes one of a million.
"""

from __future__ import annotations

import os

import pytest

from esper.memory import Memory
from esper.memory.journal import Options
from esper.memory.stores.sqlite.store import SqliteStore

MANY_STEPS = int(os.environ.get("ESPER_MANY_STEPS", "100000"))
ODD = [
    "'; DROP TABLE episode; --",
    '" OR NEAR(a b) * ^ title: -x AND',
    "../../etc/passwd\\..\\C:",
    "%s %(x)s {0} ? :name $1",
    "",
    " ",
    "\N{PILE OF POO} ﬁ İ \u202e ß",
    "\udcff broken \ud800",
]


@pytest.fixture
def memory(location, clock):
    with Memory(location, clock=clock) as opened:
        yield opened


@pytest.mark.parametrize("location", ["file", "postgresql"], indirect=True)
@pytest.mark.parametrize("text", ODD)
def test_odd_texts_are_texts_and_nothing_else(memory, text):
    names = {"task_type": text, "domain": text, "namespace": text, "tags": [text]}
    with memory.episode(text, topic=text, **names) as episode:
        episode.step(text, text, parameters={text: text}, result=[text], error=text)
        episode.recall(text)
    memory.note(text, namespace=text, thread=text)
    memory.recall(text)
    found = memory.get(episode.id)
    kept = text.encode("utf-8", "backslashreplace").decode()
    told = (found.task, found.task_type, found.domain, found.namespace, found.tags, found.context)
    assert told == (kept, kept, kept, kept, (kept,), {"topic": kept})
    step = found.steps[0]
    assert (step.tool, step.action, step.error) == (kept, kept, kept)
    assert (step.parameters, step.result) == ({kept: kept}, [kept])
    assert memory.store.check() == []
    assert memory.forget(namespace=kept) == 1


@pytest.mark.parametrize("location", ["file", "postgresql"], indirect=True)
def test_a_step_of_ten_megabytes_comes_back_whole(memory, location):
    large = "word " * 2_000_000
    with memory.episode("a large one") as episode:
        episode.step("tool", result=large)
    memory.close()
    with Memory(location) as again:
        assert again.get(episode.id).steps[0].result == large
        assert again.recall("a large one").ids == (episode.id,)


def test_an_episode_of_very_many_steps_is_recorded_completed_and_read(tmp_path):
    options = Options(max_batch=512, flush_interval=3_600)
    with Memory(tmp_path / "memory.db", options=options) as memory:
        with memory.episode("a long one") as episode:
            for number in range(MANY_STEPS):
                episode.step("tool", "do", tokens=number % 7)
        found = memory.get(episode.id, steps=False)
        assert (found.num_steps, found.state) == (MANY_STEPS, "completed")
        assert [step.number for step in memory.store.episodes.tail(episode.id, 2)] == [
            MANY_STEPS - 1,
            MANY_STEPS,
        ]
        assert len(memory.get(episode.id).steps) == MANY_STEPS


def test_what_was_forgotten_cannot_be_found_in_the_file(tmp_path):
    path = tmp_path / "memory.db"
    with Memory(path) as memory:
        with memory.episode("about Xylophon", domain="Xylophon") as episode:
            episode.step("tool", "Xylophon", result="Xylophon" * 1_000)
        memory.note("of something else")
        memory.forget(episode=episode.id)
        memory.store.vacuum()
    assert b"ylophon" not in path.read_bytes().lower()
    store = SqliteStore(path)
    assert store.check() == []
    store.close()
