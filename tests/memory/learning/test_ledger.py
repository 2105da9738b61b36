"""What a process keeps of what was learned makes no difference to what is learned."""

from __future__ import annotations

import tempfile
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.memory.conftest import HandClock

from esper.memory import Memory

TOOLS = st.sampled_from(["search", "edit", "test"])
STEPS = st.lists(st.tuples(TOOLS, st.sampled_from([None, "2 failed"])), min_size=1, max_size=5)
EPISODE = st.tuples(st.just("episode"), st.sampled_from(["fix", "add"]), STEPS, st.booleans())
OTHER = st.tuples(st.sampled_from(["use", "forget", "note"]), st.just(""), st.just([]), st.booleans())
DEEDS = st.lists(st.one_of(EPISODE, EPISODE, OTHER), min_size=3, max_size=10)


def play(memory, deed, ids):
    what, kind, steps, good = deed
    if what == "episode":
        with memory.episode("the task", task_type=kind) as episode:
            for tool, error in steps:
                episode.step(tool, "as usual", error=error)
            found = episode.recall("as usual: edit the task, test it", k=2)
            if num_used := len(steps) % 3:
                episode.used(*found.ids[:num_used])
            if not good:
                episode.fail("it did not work")
        ids.append(episode.id)
    elif what == "forget" and ids:
        memory.forget(episode=ids.pop(0))
    elif what == "note":
        memory.note("a fact")
    elif what == "use":
        found = memory.recall("as usual: edit the task, test it")
        memory.feedback(found, found.ids[:2], reward=float(good))


def learned(memory):
    told = [msgspec.structs.replace(item, id="", created=0) for item in memory.patterns()]
    return sorted(told, key=lambda item: item.signature or 0), memory.store.sightings.habits("default", [""])


@settings(max_examples=15, deadline=None)
@given(DEEDS, st.lists(st.integers(0, 1), min_size=12, max_size=12))
def test_two_handles_in_turn_learn_what_one_learns_that_forgets_all_between(deeds, turns):
    with tempfile.TemporaryDirectory() as folder:
        kept, reopened = Path(folder) / "kept.db", Path(folder) / "reopened.db"
        one, two = HandClock(), HandClock()
        ids, others = [], []
        with Memory(kept, clock=one) as first, Memory(kept, clock=one) as second:
            for deed, turn in zip(deeds, turns, strict=False):
                two.now = one.now
                play((first, second)[turn], deed, ids)
                with Memory(reopened, clock=two) as alone:
                    play(alone, deed, others)
            with Memory(reopened, clock=two) as alone:
                assert learned(first) == learned(alone)


def test_a_completion_that_fails_leaves_nothing_behind_in_the_process(memory, monkeypatch):
    def complete():
        with memory.episode("the task") as episode:
            episode.step("search", "it")
            episode.step("edit", "it")

    complete()
    with monkeypatch.context() as patched:
        patched.setattr(memory.store, "touch", lambda _: 1 // 0)
        with pytest.raises(ZeroDivisionError):
            complete()
    assert memory.patterns() == []
    complete()
    assert {item.tally.occurrences for item in memory.patterns()} == {2}


def test_trust_earned_by_use_is_still_there_after_the_next_completion(memory):
    def complete(*, using=False):
        with memory.episode("the task", task_type="fix") as episode:
            if using:
                pattern = memory.patterns()[0]
                episode.recall(pattern.lesson.text, k=20)
                episode.used(pattern.id)
            episode.step("search", "it")
            episode.step("edit", "it")

    for using in (False, False, True, False):
        complete(using=using)
    best = max(memory.patterns(), key=lambda item: item.tally.used)
    assert (best.tally.used, best.tally.successes, best.tally.occurrences) == (1, 6.0, 4)
