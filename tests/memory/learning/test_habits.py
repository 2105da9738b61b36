"""What is chance and what is a pattern."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from esper.memory import Memory
from esper.memory.learning.course import Course
from esper.memory.learning.habits import added, expected, habits_of, is_pattern
from esper.memory.learning.observation import Observation
from esper.memory.records import Episode, Step
from esper.memory.stores.store import Filter, Support

TOOLS = "abcdefghij"


def episode(*tools):
    steps = tuple(Step(number=number, tool=tool) for number, tool in enumerate(tools, start=1))
    return Episode(id="e", task="t", steps=steps)


def habits(episodes, *, reward=0.5):
    counts = {}
    for one in episodes:
        counts = added(counts, habits_of(Course(one), reward))
    return counts


def sequence(*actions):
    return Observation.of("default", "sequence", actions)


def decision(condition, action, *, previous=""):
    return Observation.of("default", "decision", (action,), condition=condition, previous=previous)


def at_random(count):
    dice = random.Random(0)
    return [episode(*(dice.choice(TOOLS) for _ in range(10))) for _ in range(count)]


def test_the_expected_number_of_a_sequence_is_about_what_random_tools_give():
    episodes = at_random(3_000)
    told = habits(episodes)
    found = 0
    for one in episodes:
        names = [step.tool for step in one.steps]
        runs = [name for place, name in enumerate(names) if not place or names[place - 1] != name]
        found += sum(runs[place : place + 3] == ["a", "b", "c"] for place in range(len(runs) - 2))
    assert found > 15
    assert 0.6 < found / expected(sequence("a", "b", "c"), told) < 1.4


def test_what_random_tools_give_is_no_pattern_and_what_they_do_not_is():
    told = habits(at_random(1_000))
    usual = expected(sequence("a", "b", "c"), told)
    assert not is_pattern(sequence("a", "b", "c"), Support(round(usual), 0.5 * usual), told, there=False)
    assert is_pattern(sequence("a", "b", "c"), Support(round(3 * usual), 1.5 * usual), told, there=False)


def test_a_choice_at_chance_is_a_pattern_when_it_ends_otherwise_than_usual():
    told = habits(at_random(1_000))
    choice = decision("after a", "b", previous="a")
    seen = round(expected(choice, told))
    assert seen > 50
    assert not is_pattern(choice, Support(seen, 0.5 * seen), told, there=False)
    assert is_pattern(choice, Support(seen, 0.9 * seen), told, there=False)
    assert is_pattern(choice, Support(seen, 0.1 * seen), told, there=False)


def test_the_usual_way_is_a_pattern_even_with_two_tools():
    told = habits([episode("a", "b", "a")] * 10)
    assert is_pattern(sequence("a", "b", "a"), Support(10, 5.0), told, there=False)
    assert is_pattern(decision("after a", "b", previous="a"), Support(10, 5.0), told, there=False)


def test_what_is_there_stays_a_little_longer_than_it_takes_to_begin():
    told = habits([episode("x")] * 1_024)
    one = sequence("p", "q", "r")
    assert is_pattern(one, Support(7, 3.0), told, there=False)
    assert not is_pattern(one, Support(6, 3.0), told, there=False)
    assert is_pattern(one, Support(6, 3.0), told, there=True)
    assert not is_pattern(one, Support(5, 2.5), told, there=True)


@given(st.lists(st.text("abc", min_size=1, max_size=6), min_size=1, max_size=8), st.floats(0.0, 1.0))
def test_what_an_episode_put_in_can_be_taken_out_again(runs, reward):
    before = habits([episode(*run) for run in runs])
    more = habits_of(Course(episode("a", "c", "a")), reward)
    after = added(added(before, more), more, sign=-1.0)
    assert set(after) == {name for name, count in before.items() if count > 0}
    assert all(abs(after[name] - before[name]) < 1e-9 for name in after)


def test_random_work_leaves_few_patterns_and_a_way_that_recurs_is_among_them(clock):
    dice = random.Random(1)
    with Memory(":memory:", clock=clock) as memory:
        for number in range(300):
            with memory.episode("task", task_type="fix") as told:
                for _ in range(8):
                    told.step(dice.choice(TOOLS))
                for tool in ("x", "y", "z") if number % 10 == 0 else ():
                    told.step(tool)
                told.succeed()
        found = memory.patterns(Filter(namespace="default", patterns=("sequence",)), limit=1_000)
    ways = {item.lesson.actions: item.tally.occurrences for item in found}
    assert ways["x", "y", "z"] == 30
    assert len(ways) < 60


def test_patterns_that_turn_out_to_be_chance_are_erased(clock):
    dice = random.Random(2)
    with Memory(":memory:", clock=clock) as memory:
        for _ in range(2):
            with memory.episode("task") as told:
                for tool in "abc":
                    told.step(tool)
        assert [item.lesson.actions for item in _sequences(memory)] == [("a", "b", "c")]
        for _ in range(200):
            with memory.episode("task") as told:
                for _ in range(10):
                    told.step(dice.choice("abcd"))
                told.partial(0.5)
        assert ("a", "b", "c") not in {item.lesson.actions for item in _sequences(memory)}


def test_forgetting_an_episode_takes_it_out_of_the_habits(memory):
    def play(tools):
        with memory.episode("task", task_type="fix") as told:
            for tool in tools:
                told.step(tool)
        return told.id

    play("abc")
    before = memory.store.sightings.habits("default", ["", "fix"])
    memory.forget(episode=play("acdd"))
    assert memory.store.sightings.habits("default", ["", "fix"]) == before


def _sequences(memory):
    return memory.patterns(Filter(namespace="default", patterns=("sequence",)), limit=1_000)
