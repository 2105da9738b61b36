"""What does not belong in a memory is found, and nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esper.memory import Memory, Options
from esper.memory.hygiene.duplicates import fingerprint, repeated
from esper.memory.hygiene.loops import MIN_ROUNDS, loops
from esper.memory.hygiene.secrets import secrets_in_episode
from esper.memory.records import Episode, Outcome, Step

SECRET = "sk-abcdefghijklmnopqrstuvwxyz123456"
WEEK = 7 * 86_400 * 10**9


def episode(*tools, **more):
    steps = tuple(Step(number=number, tool=tool) for number, tool in enumerate(tools, start=1))
    return Episode(id="one", task="a task", steps=steps, **more)


@given(
    before=st.lists(st.sampled_from("xyz"), unique=True),
    round_=st.lists(st.sampled_from("abcde"), min_size=1, max_size=5, unique=True),
    rounds=st.integers(1, 6),
)
def test_a_loop_is_found_from_the_third_round_on(before, round_, rounds):
    found = list(loops(episode(*before, *round_ * rounds)))
    assert len(found) == (1 if rounds >= MIN_ROUNDS else 0)
    if found:
        first, last = len(before) + 1, len(before) + rounds * len(round_)
        assert f": {rounds} times over, steps {first} to {last};" in found[0].message


def test_other_parameters_are_no_loop():
    steps = tuple(Step(number=number, tool="grep", parameters={"page": number}) for number in range(1, 9))
    assert list(loops(Episode(id="one", task="a task", steps=steps))) == []


def test_the_same_task_at_another_time_is_no_duplicate():
    first, again = episode("a", started=1), episode("a", started=2)
    assert fingerprint(first) == fingerprint(episode("a", started=1))
    assert fingerprint(first) != fingerprint(again)


def test_the_oldest_of_several_is_the_original():
    (found,) = repeated({"x": ["c", "a", "b"], "y": ["d"]}, "note")
    assert (found.subject, found.others) == ("a", ("b", "c"))


@pytest.mark.parametrize(
    ("told", "where"),
    [
        ({"task": SECRET}, "task, context or outcome"),
        ({"context": {"password": "hunter2hunter2"}}, "task, context or outcome"),
        ({"outcome": Outcome(ending="failure", reason=SECRET)}, "task, context or outcome"),
        ({"steps": (Step(number=1), Step(number=2, result={"out": SECRET}))}, "step 2"),
    ],
)
def test_a_secret_is_found_wherever_it_is_and_never_told(told, where):
    (found,) = secrets_in_episode(Episode(**{"id": "one", "task": "a task", **told}))
    assert found.message.startswith(where)
    assert SECRET not in found.message


def test_a_clean_memory_has_no_findings(memory):
    for _ in range(3):
        with memory.episode("the same task") as one:
            one.step("grep", "search")
    memory.note("one"), memory.note("two")
    assert memory.upkeep.audit() == []


def test_an_open_episode_is_stale_after_a_week_without_a_step(memory, clock):
    old = memory.episode("left").id
    clock.now += WEEK - 10**9
    fresh = memory.episode("fresh").id
    assert memory.upkeep.audit() == []
    clock.now += 2 * 10**9
    assert [one.subject for one in memory.upkeep.audit()] == [old]
    memory.resume(old).step("grep", "search")
    assert memory.upkeep.audit() == []
    assert memory.get(fresh).state == "open"


def test_an_audit_changes_nothing(tmp_path, clock):
    with Memory(tmp_path / "memory.db", clock=clock, options=Options(redact=False)) as memory:
        memory.note(SECRET), memory.note(SECRET)
        before = memory.store.counts(), memory.store.stamp(None)
        assert {one.kind for one in memory.upkeep.audit()} == {"duplicate", "secret"}
        assert (memory.store.counts(), memory.store.stamp(None)) == before


def test_other_namespaces_are_not_looked_at(memory):
    memory.note("twice", namespace="other"), memory.note("twice", namespace="other")
    assert memory.upkeep.audit() == []
