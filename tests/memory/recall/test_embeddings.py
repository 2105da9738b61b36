"""Vectors are checked, a record keeps one, and the nearest are found exactly."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from esper.errors import EmbeddingError
from esper.memory.recall.embeddings import CallableEmbedder, record_vectors, unit_rows
from esper.memory.recall.vectors import VectorIndex


def _letters(texts: Sequence[str]) -> list[list[float]]:
    return [[float(text.count(letter)) for letter in "abcd"] for text in texts]


@pytest.fixture
def letters() -> CallableEmbedder:
    return CallableEmbedder(_letters, name="letters", dimension=4)


def test_what_a_function_gives_is_brought_to_unit_length(letters: CallableEmbedder) -> None:
    np.testing.assert_allclose(letters.embed(["aaab", "cd"])[1], [0, 0, 0.5**0.5, 0.5**0.5])
    assert letters.embed(["aaab", "cd"]).dtype == np.float32


def test_no_texts_give_no_rows(letters: CallableEmbedder) -> None:
    assert letters.embed([]).shape == (0, 4)


@pytest.mark.parametrize(
    "answer",
    [[[1.0, 2.0]], [[1.0, 2.0, 3.0]] * 2, [[1.0, float("nan"), 0.0]], [["a", "b", "c"]], "nothing", None],
)
def test_anything_else_than_one_finite_row_a_text_is_refused(answer: object) -> None:
    with pytest.raises(EmbeddingError):
        unit_rows(answer, num_rows=1, dimension=3)  # type: ignore[arg-type]


def test_a_row_of_zeros_is_like_nothing() -> None:
    assert not unit_rows([[0.0, 0.0]], num_rows=1, dimension=2).any()


def test_a_short_title_weighs_as_much_as_a_long_text(letters: CallableEmbedder) -> None:
    (vector,) = record_vectors(letters, [("a", "b" * 1_000)])
    assert vector[0] == pytest.approx(vector[1], rel=1e-2)


@pytest.mark.parametrize("record", [("ab", ""), ("", "ab")])
def test_a_record_of_one_field_keeps_its_vector(letters: CallableEmbedder, record: tuple[str, str]) -> None:
    np.testing.assert_allclose(record_vectors(letters, [record]), letters.embed(["ab"]), rtol=1e-6)


def test_equal_texts_are_embedded_once() -> None:
    asked: list[str] = []

    def noted(texts: Sequence[str]) -> list[list[float]]:
        asked.extend(texts)
        return _letters(texts)

    embedder = CallableEmbedder(noted, name="noted", dimension=4)
    record_vectors(embedder, [("a", "b"), ("a", "c"), ("a", "b")])
    assert sorted(asked) == ["a", "a: b", "a: c"]


OPERATIONS = st.lists(
    st.tuples(st.sampled_from("abcdef"), st.one_of(st.none(), st.integers(0, 9))), max_size=30
)


@given(OPERATIONS)
def test_an_index_holds_what_was_put_last_and_not_removed(operations: list[tuple[str, int | None]]) -> None:
    index, expected = VectorIndex(3), {}
    for id, seed in operations:
        if seed is None:
            index.remove([id])
            expected.pop(id, None)
        else:
            vector = np.random.default_rng(seed).normal(size=(1, 3))
            expected[id] = unit_rows(vector, num_rows=1, dimension=3)[0]
            index.put([id], expected[id][None])
    query = np.array([1, 0, 0], np.float32)
    assert len(index) == len(expected)
    assert index.cosines(query, "abcdefg") == pytest.approx(
        {id: float(row[0]) for id, row in expected.items()}
    )
    assert set(index.nearest(query, 10)) == set(expected)


def test_the_nearest_come_first_and_no_more_than_asked_for() -> None:
    index = VectorIndex(2)
    rows = unit_rows([[1, 0], [1, 1], [0, 1], [-1, 0]], num_rows=4, dimension=2)
    index.put(["same", "near", "across", "opposite"], rows)
    found = index.nearest(rows[0], 2)
    assert list(found) == ["same", "near"]
    assert found["near"] == pytest.approx(0.5**0.5)


def test_vectors_of_another_dimension_are_refused() -> None:
    with pytest.raises(EmbeddingError, match="shape"):
        VectorIndex(3).put(["a"], np.zeros((1, 2), np.float32))
