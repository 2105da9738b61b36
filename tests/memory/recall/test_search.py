"""From a question to answers: repeats, relevance, what was shown."""

from __future__ import annotations

import datetime
import subprocess
import sys

import pytest
from tests.memory.conftest import DAY

from benchmarks.memory.beir import Document, Metadata
from benchmarks.memory.rankers import Hybrid, Lexical, Remembered
from esper.memory import Memory
from esper.memory.identity import day_of
from esper.memory.recall.embeddings import CallableEmbedder
from esper.memory.recall.ranking import fuse
from esper.memory.records import Relation

WORDS = [
    "river",
    "lamp",
    "stone",
    "violin",
    "garden",
    "copper",
    "winter",
    "letter",
    "bridge",
    "candle",
    "forest",
    "mirror",
]


def filled(memory, count=120):
    for number in range(count):
        first, second = WORDS[number % 12], WORDS[(number // 12 + number) % 12]
        memory.note(f"the {first} and the {second} number {number}")


def test_equal_items_are_one_answer_that_names_the_others(memory):
    ids = [memory.note("restart the server").id for _ in range(3)]
    other = memory.note("restart the router")
    found = memory.recall("restart the server", k=5)
    assert len(found) == 2
    assert {found[0].id, *found[0].alike} == set(ids)
    assert found[1].id == other.id
    assert "(and 2 alike)" in found.explain()


def test_however_many_equal_items_there_are_they_do_not_crowd_others_out(memory):
    for _ in range(260):
        memory.note("restart restart the server")
    others = {memory.note(f"restart the {word} before anything else is done").id for word in WORDS[:3]}
    assert others < set(memory.recall("restart", k=4).ids)


def test_a_question_about_something_else_has_no_answer(memory):
    filled(memory)
    question = "which quarterly dividend did the pension administrators of Luxembourg announce number"
    assert memory.recall(question).answers == ()
    assert memory.recall(question).explain() == f"nothing relevant to {question!r}"
    assert memory.recall("the copper bridge").relevant


def test_in_a_small_memory_every_match_is_an_answer(memory):
    note = memory.note("the river is cold")
    assert memory.recall("which quarterly dividend did the river administrators announce").ids == (note.id,)


def test_the_rare_words_at_the_end_of_a_long_question_count(memory):
    for number in range(120):
        memory.note(f"common{number % 40} {number}")
    note = memory.note("saxophone repair workshop brass valves pads")
    question = (
        " ".join(f"common{number}" for number in range(40)) + " saxophone repair workshop brass valves pads"
    )
    assert memory.recall(question)[0].id == note.id


def test_a_note_is_found_by_the_words_of_those_before_it_in_its_thread(memory):
    memory.note("do you like the violin", thread="talk")
    answer = memory.note("yes, very much", thread="talk")
    apart = memory.note("yes, very much so", thread="another talk")
    found = memory.recall("violin").ids
    assert answer.id in found
    assert apart.id not in found


def test_an_episode_is_found_by_the_task_that_it_follows(memory):
    with memory.episode("migrate the violin catalogue") as first:
        first.step("sql", "alter")
    with memory.episode("clean up") as second:
        memory.relations.add("follows", second.id, first.id)
        second.step("sql", "drop")
    assert memory.recall("violin").ids[:2] == (first.id, second.id)


def test_a_note_is_found_by_its_day(memory, clock):
    note = memory.note("we moved")
    clock.now += 40 * DAY
    memory.note("we moved")
    day = day_of(note.created)
    assert isinstance(day, datetime.date)
    found = memory.recall(f"what happened in {day.strftime('%B')}")
    assert note.id in (found[0].id, *found[0].alike)


def by_letters(texts):
    """The counts of the letters of each text."""
    return [[text.count(letter) + 0.1 for letter in "abcdefghijklmnopqrstuvwxyz"] for text in texts]


def documents_of_words():
    return [
        Document(
            f"d{number}",
            text=f"{WORDS[number * 5 % 12]} {WORDS[number * 7 % 11]} {WORDS[number % 7]}",
            title=WORDS[number % 5],
            metadata=Metadata(thread=number // 10, date=f"2023-0{1 + number % 9}-11"),
        )
        for number in range(60)
    ]


QUESTIONS = ("a river of stone", "garden in May 2023", "violin candle", "the winter letter")


def test_the_memory_ranks_as_the_measured_ranker():
    documents = documents_of_words()
    ours, measured = Remembered(documents), Lexical(documents)
    for question in QUESTIONS:
        scores = measured.scores(question)
        ranked = [round(scores[id], 9) for id in ours.rank(question)]
        assert ranked == sorted(ranked, reverse=True)
        assert ranked == [round(score, 9) for score in scores.values()]


def test_with_an_embedder_too():
    documents = documents_of_words()
    embedder = CallableEmbedder(by_letters, name="letters", dimension=26)
    ours, measured = Remembered(documents, embedder=embedder), Hybrid(documents, embedder)
    for question in QUESTIONS:
        totals = {one.key: one.total for one in fuse(*measured.candidates(question))}
        ranked = [totals[id] for id in ours.rank(question)]
        assert ranked == pytest.approx(sorted(totals.values(), reverse=True)[: len(ranked)])
        assert len(ranked) == len(totals)


def test_what_was_shown_is_stored_no_later_than_the_next_step(tmp_path):
    with Memory(tmp_path / "memory.db") as memory, Memory(tmp_path / "memory.db") as other:
        note = memory.note("restart the server")
        episode = memory.episode("task")
        first = memory.recall("restart")
        episode.step("shell", "restart")
        assert other.store.exposures.get(first.exposure).items == (note.id,)
        second = memory.recall("server")
        memory.note("another one")
        assert other.store.exposures.get(second.exposure).items == (note.id,)


FORGETFUL = """
import sys
from esper.memory import Memory
memory = Memory(sys.argv[1])
memory.note("restart the server")
print(memory.recall("restart").exposure)
"""


def test_what_was_shown_is_stored_when_a_process_ends_without_closing(tmp_path):
    place = str(tmp_path / "memory.db")
    told = subprocess.run(
        [sys.executable, "-c", FORGETFUL, place], capture_output=True, text=True, check=True
    )
    with Memory(place) as memory:
        assert len(memory.store.exposures.get(told.stdout.strip()).items) == 1


@pytest.mark.parametrize("type", ["blocks", "references"])
def test_only_what_an_episode_follows_lends_it_its_words(memory, type):
    with memory.episode("migrate the violin catalogue") as first:
        first.step("sql", "alter")
    with memory.episode("clean up") as second:
        memory.store.catalogue.relate(Relation(type=type, source=second.id, target=first.id))
        second.step("sql", "drop")
    assert second.id not in memory.recall("violin").ids
