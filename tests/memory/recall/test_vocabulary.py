"""Common words are spared in a large memory, and in none other."""

from __future__ import annotations

import pytest

from esper.memory.recall.vocabulary import Vocabulary
from esper.memory.stores.sqlite.store import SqliteStore
from esper.testing.memory_store import note


@pytest.fixture
def store():
    opened = SqliteStore(":memory:")
    opened.items.add([note(number, f"common word{number % 5} own{number}") for number in range(20)])
    yield opened
    opened.close()


@pytest.mark.parametrize(
    ("matches", "left"),
    [
        (20, ["common", "word1", "own7"]),
        (19, ["word1", "own7"]),
        (4, ["own7"]),
        (0, ["own7"]),
    ],
)
def test_the_rarest_terms_stay_until_they_match_enough(store, matches, left):
    assert Vocabulary(store, matches=matches).telling(["common", "word1", "own7"]) == left


def test_a_question_of_common_words_alone_keeps_one(store):
    assert Vocabulary(store, matches=3).telling(["common"]) == ["common"]
    assert Vocabulary(store, matches=3).telling([]) == []


def test_counts_are_taken_anew_when_the_memory_has_grown(store):
    vocabulary = Vocabulary(store, matches=6)
    assert vocabulary.telling(["own7", "word1"]) == ["own7", "word1"]
    store.items.add([note(100 + number, "own7") for number in range(30)])
    assert vocabulary.telling(["own7", "word1"]) == ["word1"]
