"""Questions become the words that are worth looking for."""

from __future__ import annotations

import datetime

from hypothesis import given
from hypothesis import strategies as st

from esper.memory.recall.words import STOP_WORDS, date_words, terms, tokens


def test_a_question_loses_its_function_words_and_courtesies() -> None:
    assert terms("Hi! Could you please help me to cancel the flight?") == ["cancel", "flight"]


def test_identifiers_are_kept_in_their_pieces() -> None:
    assert tokens("mia_li_3668's HXDUBJ") == ["mia", "li", "3668", "s", "hxdubj"]


def test_a_question_of_stop_words_alone_keeps_them() -> None:
    assert terms("Who are you?") == ["who", "are", "you"]


def test_a_repeated_word_is_asked_for_once() -> None:
    assert terms("retry, retry, RETRY with backoff") == ["retry", "backoff"]


def test_a_long_question_is_cut() -> None:
    assert terms(" ".join(f"w{number}" for number in range(99)), limit=3) == ["w0", "w1", "w2"]


@given(st.text(max_size=80))
def test_terms_are_distinct_tokens_and_never_lost_entirely(text: str) -> None:
    found = terms(text)
    assert set(found) <= set(tokens(text))
    assert len(set(found)) == len(found)
    assert bool(found) == bool(tokens(text))
    assert not set(found) & STOP_WORDS or set(found) <= STOP_WORDS


def test_a_day_is_written_in_english_words() -> None:
    assert date_words(datetime.date(2023, 5, 8)) == "8 May 2023"
    assert date_words(datetime.date(2024, 12, 31)) == "31 December 2024"
