"""A pattern is what made a difference: tools with what they did, held against what was done otherwise."""

from __future__ import annotations

from itertools import count, permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esper.memory import Memory
from esper.memory.learning.contrast import ahead
from esper.memory.records import Tally
from esper.memory.stores.store import Filter, Support

SECOND = 10**9
TASK = "fix the flaky test in ci"
PLACE = "after pytest failed with <number> failed"
FREEZE = "editor: freeze the clock"
SLEEP = "editor: add sleep"


def ticking():
    """A clock of one day: nothing decays."""
    ticks = count(1_800_000_000 * SECOND, 10**6)
    return lambda: next(ticks)


def mend(memory, action, *, works):
    with memory.episode(TASK) as episode:
        episode.step("pytest", "run the suite", error="2 failed")
        episode.step("editor", action)
        episode.step("pytest", "run the suite", error=None if works else "2 failed")
        episode.succeed("green") if works else episode.fail("still red")
    return episode.episode


def alternate(memory):
    return [
        mend(memory, "add sleep" if number % 2 else "freeze the clock", works=not number % 2)
        for number in range(6)
    ]


def patterns(memory):
    return {(one.pattern, *one.lesson.actions): one for one in memory.patterns(limit=1_000)}


def section(text, name):
    """The lines of one section of a context pack."""
    return text.partition(f"{name}:\n")[2].partition("\n\n")[0].splitlines()


def test_what_cured_is_told_with_what_did_not_and_how_often(memory):
    alternate(memory)
    told = memory.context(TASK).text
    assert f"- {PLACE}: {FREEZE} (3 of 3); avoid {SLEEP} (0 of 3)" in section(told, "What has worked")


def test_two_actions_of_one_tool_are_two_things(memory):
    alternate(memory)
    found = patterns(memory)
    assert found["recovery", FREEZE].tally.successes == 3
    assert found["antipattern", SLEEP].tally.successes == 3
    assert ("decision", "editor") not in found


def test_an_action_that_never_recurs_is_known_by_its_tool(memory):
    for number, word in enumerate(("alpha", "beta", "gamma", "delta", "eta", "theta")):
        with memory.episode("write") as episode:
            episode.step("think" if number % 2 else "outline", f"on {word}")
            episode.step("draft", f"about {word}")
            episode.fail() if number % 2 else episode.succeed()
    found = patterns(memory)
    assert found["sequence", "outline", "draft"].tally.successes == 3
    assert [one for one in found if any(":" in name for name in one[1:])] == []


def test_what_is_in_every_success_too_is_no_warning(memory):
    alternate(memory)
    found = patterns(memory)
    assert ("antipattern", "pytest: run the suite") not in found
    assert [one for one in found if one[0] != "recovery" and one[1:] == ("pytest", "editor", "pytest")] == []


def test_a_check_that_always_fails_is_not_warned_of(memory):
    for _ in range(4):
        mend(memory, "add sleep", works=False)
    assert ("antipattern", "pytest: run the suite") not in patterns(memory)


def test_a_warning_says_what_to_do_instead_whichever_was_seen_first(memory):
    for first, second in ((True, False), (False, True)):
        with Memory(":memory:", clock=ticking()) as memory:
            for works in (first, first, first, second, second, second):
                mend(memory, "freeze the clock" if works else "add sleep", works=works)
            warning = patterns(memory)["antipattern", SLEEP]
            assert warning.lesson.instead == (FREEZE,)
            assert warning.lesson.text == f"{PLACE}: avoid {SLEEP}. Instead: {FREEZE}."


def test_a_choice_without_any_error_is_warned_of_by_how_it_ended(memory):
    for number in range(6):
        with memory.episode("ship", task_type="release") as episode:
            episode.step("build", "all")
            episode.step("deploy", "with cache" if number % 2 else "without cache")
            episode.fail("stale") if number % 2 else episode.succeed()
    found = patterns(memory)
    assert found["antipattern", "deploy: with cache"].lesson.instead == ("deploy: without cache",)
    assert found["decision", "deploy: without cache"].tally.successes == 3
    told = memory.context("ship").text
    assert "deploy: without cache (3 of 3); avoid deploy: with cache (0 of 3)" in told


def test_a_deed_that_mostly_works_is_not_warned_of_for_its_bad_days(memory):
    for number in range(12):
        with memory.episode("load") as episode:
            episode.step("curl", "fetch", error="timed out" if number in (3, 7) else None)
            episode.step("jq", "parse")
            episode.succeed()
    assert [one for one in patterns(memory) if one[0] == "antipattern"] == []


def test_where_it_makes_no_difference_there_is_no_pattern(memory):
    for number in range(16):
        with memory.episode("paint") as episode:
            episode.step("brush", "red" if number % 2 else "blue")
            episode.step("wall", "paint")
            episode.succeed() if number % 4 < 2 else episode.fail()
    assert [one for one in patterns(memory) if "brush: red" in one or "brush: blue" in one] == []


def test_a_context_does_not_contradict_itself(memory):
    alternate(memory)
    mend(memory, "freeze the clock", works=False)
    told = memory.context(TASK).text
    assert f"do not repeat {FREEZE}" not in told
    assert [line for line in section(told, "What to avoid") if FREEZE in line or "pytest" in line] == []
    assert [line for line in section(told, "What has worked") if line.startswith("- pytest →")] == []


def test_episodes_of_one_task_are_one_lesson(memory):
    alternate(memory)
    lessons = section(memory.context(TASK).text, "Lessons from before")
    assert lessons == [f"- {TASK} (3 of 6 succeeded): next time at once: {FREEZE}; do not repeat {SLEEP}"]


def test_reflection_blames_what_cured_nothing_and_not_the_check(memory):
    failed = mend(memory, "add sleep", works=False)
    assert failed.reflection.advice == (f"do not repeat {SLEEP}",)
    assert failed.reflection.failed == ("still red", f"{SLEEP} did not cure 2 failed")
    assert failed.credit[1] == min(failed.credit)


def test_an_error_that_was_cured_is_no_failure_however_it_ended(memory):
    with memory.episode("release") as episode:
        episode.step("build", "all", error="no disk")
        episode.step("shell", "clean")
        episode.step("build", "all")
        episode.step("upload", "send", error="forbidden")
        episode.fail()
    told = episode.episode.reflection
    assert told.failed == ("upload: send: forbidden",)
    assert "do not repeat upload: send" in told.advice
    assert episode.episode.credit[3] == -1.0


EPISODES = st.lists(
    st.tuples(st.sampled_from(["freeze", "sleep", "retry"]), st.booleans()), min_size=1, max_size=7
)


@settings(max_examples=25, deadline=None)
@given(EPISODES, st.randoms(use_true_random=False))
def test_the_order_of_episodes_does_not_matter_for_counts(told, dice):
    shuffled = list(told)
    dice.shuffle(shuffled)
    first, second = _counts(told), _counts(shuffled)
    both = first.keys() & second.keys()
    assert {one: first[one] for one in both} == {one: second[one] for one in both}


def test_counts_are_the_same_in_every_order_in_which_two_ways_can_come():
    ways = [("freeze", True)] * 2 + [("sleep", False)] * 3
    told = {tuple(sorted(_counts(order).items())) for order in set(permutations(ways))}
    merged: dict[object, set[object]] = {}
    for one in told:
        for key, counted in one:
            merged.setdefault(key, set()).add(counted)
    assert len(merged) > 2
    assert {len(counts) for counts in merged.values()} == {1}


def _counts(told):
    with Memory(":memory:", clock=ticking()) as memory:
        for action, works in told:
            mend(memory, action, works=works)
        found = memory.patterns(Filter(namespace="default"), limit=1_000)
    return {
        (one.pattern, one.lesson.condition, one.lesson.actions): (
            one.tally.occurrences,
            round(one.tally.successes, 6),
            round(one.tally.failures, 6),
        )
        for one in found
    }


@given(st.integers(1, 40), st.integers(1, 40), st.data())
def test_ahead_is_the_same_from_both_sides(seen, others, data):
    won = data.draw(st.floats(0, seen))
    rest = data.draw(st.floats(0, others))
    base = Support(seen + others, won + rest)
    one, other = ahead(Support(seen, won), base), ahead(Support(others, rest), base)
    assert (one is None) == (other is None)
    assert one is None or one == pytest.approx(-other, abs=1e-6)


@pytest.mark.parametrize("clean_at", [0, 3, 6])
def test_a_warning_counts_the_days_on_which_the_deed_worked(memory, clean_at):
    for number in range(7):
        with memory.episode("load") as episode:
            episode.step("curl", "fetch", error=None if number == clean_at else "timed out")
            episode.step("jq", "parse")
            episode.succeed()
    tally = patterns(memory)["antipattern", "curl: fetch"].tally
    assert (tally.occurrences, tally.successes, tally.failures) == (7, 6.0, 1.0)


def test_what_no_longer_works_is_not_told_as_what_has_worked(memory):
    for _ in range(2):
        mend(memory, "freeze the clock", works=True)
    found = memory.patterns(limit=1_000)
    assert section(memory.context(TASK).text, "What has worked")
    memory.store.items.update({one.id: Tally(1.0, 4.0, 5, touched=one.tally.touched) for one in found})
    memory.note("something new")
    assert section(memory.context(TASK).text, "What has worked") == []
