"""The retrieval benchmark counts what it says, reads BEIR's layout, and converts what it is given."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.memory import convert
from benchmarks.memory.beir import Document, Metadata, Part, Question, read_parts, write_part
from benchmarks.memory.measures import interval, mean, measure
from benchmarks.memory.rankers import Lexical, PlainBM25, WordOverlap
from benchmarks.memory.retrieval import ask, table

DOCUMENTS = [
    Document("d1", "I adopted a puppy", "Ann", Metadata(thread="s1", date="2023-05-08T10:00:00")),
    Document("d2", "What is its name?", "Bob", Metadata(thread="s1")),
    Document("d3", "Biscuit!", "Ann", Metadata(thread="s1")),
    Document("d4", "The weather is fine", "Bob", Metadata(thread="s2")),
    Document("d5", "My train was late", "Bob", Metadata(thread="s2")),
]
QUESTIONS = [Question("q1", "What is the puppy called?", Metadata(category="names"))]


@pytest.fixture
def part() -> Part:
    return Part("", DOCUMENTS, QUESTIONS, {"q1": {"d3": 1}})


def test_measures_are_those_of_beir() -> None:
    measured = measure(["x", "a", "y", "b"], {"a": 2, "b": 1, "c": 1})
    assert (measured.r1, measured.r5, measured.mrr) == (0.0, pytest.approx(2 / 3), 0.5)
    # by hand: (2 / log2(3) + 1 / log2(5)) / (2 + 1 / log2(3) + 1 / 2)
    assert measured.ndcg10 == pytest.approx((1.26186 + 0.43068) / 3.13093, rel=1e-4)


def test_a_perfect_ranking_measures_one_and_an_empty_one_nothing() -> None:
    assert measure(["a"], {"a": 1}).ndcg10 == 1.0
    assert measure([], {"a": 1}).mrr == 0.0


def test_an_interval_holds_the_mean() -> None:
    measured = [measure(["a"] if number % 3 else ["b"], {"a": 1}) for number in range(60)]
    low, high = interval(measured, "r1")
    assert low < mean(measured, "r1") < high
    assert 0.4 < low < high < 0.9


def test_a_set_is_read_as_it_was_written(tmp_path: Path, part: Part) -> None:
    write_part(part, tmp_path)
    assert read_parts(tmp_path) == [part]


def test_sets_below_a_folder_are_grouped_by_its_first_level(tmp_path: Path, part: Part) -> None:
    write_part(part, tmp_path / "tuned" / "b")
    write_part(part, tmp_path / "held" / "a")
    assert [(one.name, one.group) for one in read_parts(tmp_path)] == [
        ("held/a", "held"),
        ("tuned/b", "tuned"),
    ]


def test_foreign_sets_may_have_less_and_more_than_ours(tmp_path: Path) -> None:
    (tmp_path / "qrels").mkdir()
    (tmp_path / "corpus.jsonl").write_text(
        '{"_id": "1", "title": null, "text": "a", "metadata": {"url": 3}}\n'
    )
    (tmp_path / "queries.jsonl").write_text('{"_id": "2", "text": "a"}\n{"_id": "3", "text": "unanswered"}\n')
    (tmp_path / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n2\t1\t1\n3\t1\t0\n")
    (found,) = read_parts(tmp_path)
    assert [question.id for question in found.questions] == ["2"]
    assert Lexical(found.documents).rank("a") == ["1"]


def test_a_folder_without_a_set_says_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"corpus\.jsonl"):
        read_parts(tmp_path)


def test_what_was_said_before_helps_to_find_a_record() -> None:
    assert "d3" not in PlainBM25(DOCUMENTS).rank("puppy")
    assert "d3" in Lexical(DOCUMENTS).rank("puppy")
    assert "d3" not in Lexical(DOCUMENTS, without="nearby").rank("puppy")


def test_dates_are_found_in_words() -> None:
    assert Lexical(DOCUMENTS).rank("May 2023") == ["d1"]


def test_a_foreign_question_covers_little() -> None:
    lexical = Lexical(DOCUMENTS)
    assert (
        lexical.covered("late train")
        > 0.3
        > lexical.covered("quarterly revenue of the train company in Peru")
    )


def test_a_document_never_answers_its_own_question() -> None:
    documents = [Document("a", "same words"), Document("b", "same words"), Document("c", "others")]
    own = Part("", documents, [Question("a", "same words")], {"a": {"b": 1}})
    (answer,) = ask(own, "overlap", WordOverlap)
    assert answer.measured.r1 == 1.0


def test_the_table_tells_all_questions_and_each_category(part: Part) -> None:
    made = table("tiny", ask(part, "plain BM25", PlainBM25))
    assert [row[0] for row in made.cells] == ["all: plain BM25", "names: plain BM25"]


def test_conversations_are_converted_turn_by_turn(tmp_path: Path) -> None:
    turn = {"speaker": "Ann", "dia_id": "D1:1", "text": "I adopted a puppy"}
    asked = [
        {"question": "Who has a puppy?", "evidence": ["D1:1"], "category": 4},
        {"question": "Whose cat?", "evidence": ["D1:1"], "category": 5},
        {"question": "Lost?", "evidence": ["D9:9"], "category": 4},
    ]
    spoken = {"session_1_date_time": "1:56 pm on 8 May, 2023", "session_1": [turn]}
    (tmp_path / "locomo10.json").write_text(
        json.dumps([{"sample_id": "conv-1", "conversation": spoken, "qa": asked}])
    )
    (folder,) = convert.convert(tmp_path, tmp_path / "out")
    (part,) = read_parts(folder)
    assert part.name == "tuned-on/conv-1"
    assert [(one.title, one.metadata.day) for one in part.documents] == [("Ann", DOCUMENTS[0].metadata.day)]
    assert [one.text for one in part.questions] == ["Who has a puppy?"]


def test_runs_are_converted_with_their_openings_and_never_answer_themselves(tmp_path: Path) -> None:
    call = {"function": {"name": "cancel", "arguments": '{"id": "H9"}'}}
    said = [
        {"role": "user", "content": "Cancel it"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
    ]
    runs = [{"task_id": task, "trial": trial, "traj": said} for task in (0, 1) for trial in (0, 1)]
    (tmp_path / "tau_airline_gpt4o.json").write_text(json.dumps(runs))
    _, whole = (read_parts(folder)[0] for folder in convert.convert(tmp_path, tmp_path / "out"))
    assert whole.documents[0].title == "Cancel it"
    assert whole.documents[0].text == 'cancel {"id": "H9"}'
    assert whole.grades["task 0 trial 0"] == {"task 0 trial 1": 1}
