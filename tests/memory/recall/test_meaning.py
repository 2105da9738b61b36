"""Recall by meaning, and what happens when the embedder does not answer."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from esper.errors import ConfigurationError, EmbeddingError
from esper.memory import Memory
from esper.memory.recall.embeddings import CallableEmbedder
from esper.memory.recall.guarded import GuardedEmbedder

SENSES = {"car": 0, "automobile": 0, "cake": 1, "pastry": 1}


def by_sense(texts):
    """A row that points to where the known words of a text point."""
    rows = np.full((len(texts), 3), 0.01)
    for row, text in zip(rows, texts, strict=True):
        for word in text.lower().split():
            row[SENSES.get(word, 2)] += 1.0
    return rows


class Provider:
    """Counts its calls, and fails while it is told to."""

    name = "senses"
    dimension = 3

    def __init__(self):
        self.asked = []
        self.broken = False

    def embed(self, texts):
        self.asked.append(list(texts))
        if self.broken:
            raise EmbeddingError("no connection")
        return CallableEmbedder(by_sense, name=self.name, dimension=3).embed(texts)


@pytest.fixture
def provider():
    return Provider()


@pytest.fixture
def memory(clock, provider):
    with Memory(":memory:", clock=clock, embedder=provider) as opened:
        yield opened


def test_what_means_the_same_is_found_without_a_common_word(memory):
    note = memory.note("the automobile needs oil")
    memory.note("pastry is sweet")
    assert memory.recall("car")[0].id == note.id


def test_nothing_is_embedded_when_something_is_written(memory, provider):
    provider.broken = True
    memory.note("the automobile needs oil")
    with memory.episode("bake a cake") as episode:
        episode.step("oven", "heat")
    assert provider.asked == []


def test_each_item_is_embedded_once(memory, provider):
    memory.note("the automobile needs oil")
    memory.recall("car")
    memory.recall("cake")
    memory.note("pastry is sweet")
    memory.recall("oil")
    assert provider.asked == [["car", "the automobile needs oil"], ["cake"], ["oil", "pastry is sweet"]]


def test_while_the_provider_fails_words_decide_and_the_answer_says_so(memory, provider):
    note = memory.note("the automobile needs oil")
    provider.broken = True
    found = memory.recall("automobile")
    assert found.ids == (note.id,)
    assert "words alone" in found.notice
    assert "no connection" in found.explain()
    assert len(memory.recall("car")) == 0
    provider.broken = False
    assert "no vector yet" in memory.recall("car").notice
    assert memory.recall("car").ids == (note.id,)


def test_an_answer_by_words_alone_is_not_kept_for_later(memory, provider):
    memory.note("the automobile needs oil")
    memory.embed_again()
    provider.broken = True
    memory.recall("automobile")
    provider.broken = False
    again = memory.recall("automobile")
    assert (again.cached, again.notice) == (False, "")


def test_a_dead_provider_delays_a_recall_by_its_deadline_and_no_more(clock):
    waiting, gone_on = threading.Event(), threading.Event()

    def hang(texts):
        waiting.wait(10)
        gone_on.set()
        return by_sense(texts)

    slow = GuardedEmbedder(CallableEmbedder(hang, name="slow", dimension=3), deadline=0.01)
    with Memory(":memory:", clock=clock, embedder=slow) as memory:
        note = memory.note("the automobile needs oil")
        found = memory.recall("automobile")
        assert found.ids == (note.id,)
        assert "did not answer within 0.01 s" in found.notice
        assert not gone_on.is_set()
        waiting.set()


def test_vectors_are_kept_and_read_again(tmp_path, provider):
    with Memory(tmp_path / "memory.db", embedder=provider) as memory:
        note = memory.note("the automobile needs oil")
        memory.recall("car")
    other = Provider()
    with Memory(tmp_path / "memory.db", embedder=other) as memory:
        assert memory.recall("car").ids == (note.id,)
    assert other.asked == [["car"]]


def test_vectors_of_another_process_are_seen(tmp_path, provider):
    other = Provider()
    with (
        Memory(tmp_path / "memory.db", embedder=provider) as here,
        Memory(tmp_path / "memory.db", embedder=other) as there,
    ):
        here.recall("car")
        note = there.note("the automobile needs oil")
        there.recall("car")
        assert here.recall("car").ids == (note.id,)
    assert provider.asked == [["car"], ["car"]]


def test_vectors_of_another_dimension_are_not_looked_at_until_they_are_made_again(tmp_path, provider):
    wide = CallableEmbedder(lambda texts: np.hstack([by_sense(texts)] * 2), name="senses", dimension=6)
    with Memory(tmp_path / "memory.db", embedder=provider) as memory:
        note = memory.note("the automobile needs oil")
        assert memory.embed_again() == 1
        assert memory.embed_again() == 0
    with Memory(tmp_path / "memory.db", embedder=wide) as memory:
        assert memory.embed_again() == 1
        assert memory.recall("car").ids == (note.id,)


def test_more_items_than_one_question_takes_along_are_told(memory):
    for number in range(40):
        memory.note(f"automobile {number}")
    assert "embed_again" in memory.recall("car").notice
    assert memory.embed_again() == 8
    assert memory.recall("car").notice == ""


def test_filters_hold_for_what_was_found_by_meaning(memory):
    memory.note("the automobile needs oil", namespace="other")
    assert len(memory.recall("car")) == 0


def test_what_was_forgotten_is_not_found_by_meaning(memory):
    with memory.episode("wash the automobile") as episode:
        episode.step("hose", "spray")
    assert episode.id in memory.recall("car").ids
    memory.forget(episode=episode.id)
    assert memory.recall("car").ids == ()


def test_embedding_again_without_an_embedder_says_what_to_do():
    with Memory(":memory:") as memory, pytest.raises(ConfigurationError, match="embedder="):
        memory.embed_again()
