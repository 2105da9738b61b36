"""Text decides a rank: the formulas are those of FTS5, fusion adds up, and nothing relevant is an answer."""

from __future__ import annotations

import apsw
import pytest
from hypothesis import given
from hypothesis import strategies as st

from esper.memory.recall.ranking import (
    RELEVANCE,
    TOKENIZER,
    any_of,
    coverage,
    fuse,
    held_share,
    informative,
    inverse_frequency,
    nearby,
)

SCORES = st.dictionaries(st.sampled_from("abcdefgh"), st.floats(-1, 30), max_size=8)
TEXTS = ("retry with backoff", "freeze the clock", "freeze the seed", "clear a cache")


@pytest.fixture
def index() -> apsw.Connection:
    connection = apsw.Connection(":memory:")
    connection.execute(f"CREATE VIRTUAL TABLE texts USING fts5(body, tokenize='{TOKENIZER}')")
    connection.executemany("INSERT INTO texts (body) VALUES (?)", [(text,) for text in TEXTS])
    return connection


def _scores(connection: apsw.Connection, terms: list[str]) -> list[float]:
    sql = "SELECT -bm25(texts) FROM texts WHERE texts MATCH ?"
    return [score for (score,) in connection.execute(sql, (any_of(terms),))]


@given(st.lists(st.text(max_size=12), min_size=1, max_size=4))
def test_any_text_can_be_asked_for(terms: list[str]) -> None:
    connection = apsw.Connection(":memory:")
    connection.execute(f"CREATE VIRTUAL TABLE texts USING fts5(body, tokenize='{TOKENIZER}')")
    terms = [term.replace("\0", "") for term in terms]
    assert _scores(connection, terms) == []


def test_syntax_of_the_index_is_only_text(index: apsw.Connection) -> None:
    assert _scores(index, ['body:"clock" OR NOT NEAR(', "seed"]) == _scores(index, ["seed"])


def test_no_score_is_above_the_ceiling_of_its_terms(index: apsw.Connection) -> None:
    best = max(_scores(index, ["freezing", "clock"]))
    assert 0 < coverage(best, [2, 1], len(TEXTS)) < 1


def test_a_term_that_half_of_the_records_hold_adds_only_the_floor(index: apsw.Connection) -> None:
    assert inverse_frequency(2, 4) == 1e-6
    assert max(_scores(index, ["freeze"])) < 1e-5


def test_inverse_frequency_is_that_of_the_index(index: apsw.Connection) -> None:
    # One column of average length and one occurrence: the rest of BM25 is exactly one.
    index.execute("DELETE FROM texts")
    index.executemany("INSERT INTO texts (body) VALUES (?)", [("a b",), ("c d",), ("e f",), ("g h",)])
    assert _scores(index, ["c"]) == [pytest.approx(inverse_frequency(1, 4))]


def test_a_word_that_no_record_holds_lowers_the_coverage() -> None:
    assert coverage(3.0, [1, 0], 100) < coverage(3.0, [1], 100)


def test_nothing_asked_covers_nothing() -> None:
    assert coverage(0.0, [], 10) == 0.0
    assert coverage(0.0, [0], 0) == 0.0


def test_what_most_records_hold_is_not_asked_for() -> None:
    assert informative({"flight": 90, "refund": 3, "upgrade": 1}, 100) == ["upgrade", "refund"]


def test_common_words_are_asked_for_if_there_is_nothing_else() -> None:
    assert informative({"flight": 90, "cancel": 60}, 100) == ["cancel", "flight"]


def test_of_too_many_terms_the_rarest_are_asked_for() -> None:
    frequencies = {f"w{count}": count for count in range(20, 0, -1)}
    assert informative(frequencies, 1_000, limit=2) == ["w1", "w2"]


def test_the_context_of_a_record_is_the_two_before_it() -> None:
    assert nearby(["first", "second", "third"]) == "second third"
    assert nearby([]) == ""


def test_a_candidate_that_both_sides_find_wins() -> None:
    ranked = fuse({"words": 9.0, "both": 8.0}, {"meaning": 0.8, "both": 0.7}, weight=0.5)
    assert ranked[0].key == "both"
    assert {one.key for one in ranked} == {"words", "meaning", "both"}


def test_the_weight_decides_between_words_and_meaning() -> None:
    words, meaning = {"a": 2.0, "b": 1.0}, {"a": 0.3, "b": 0.9}
    assert fuse(words, meaning, weight=0.1)[0].key == "a"
    assert fuse(words, meaning, weight=0.9)[0].key == "b"


@given(SCORES, SCORES)
def test_a_total_is_the_sum_of_its_parts_and_lies_between_nothing_and_one(
    words: dict[str, float], meaning: dict[str, float]
) -> None:
    ranked = fuse(words, meaning)
    assert {one.key for one in ranked} == {*words, *meaning}
    assert [one.total for one in ranked] == sorted((one.total for one in ranked), reverse=True)
    for one in ranked:
        assert one.total == one.lexical + one.semantic
        assert 0 <= one.total <= 1 + 1e-9


@given(SCORES)
def test_without_vectors_the_order_is_that_of_the_words(words: dict[str, float]) -> None:
    positive = {key: value for key, value in words.items() if value > 1e-3}
    expected = sorted(positive, key=lambda key: -positive[key])
    assert [one.key for one in fuse(positive, {})] == expected


def test_strong_evidence_of_either_kind_is_relevant_and_weak_is_not() -> None:
    assert RELEVANCE.holds(0.3, held=held_share(1, 3))
    assert RELEVANCE.holds(0.0, held=held_share(1, 1))
    assert not RELEVANCE.holds(0.1, held=held_share(1, 3))
    assert RELEVANCE.holds(0.05, cosine=0.7)
    assert not RELEVANCE.holds(0.2, cosine=0.2)
