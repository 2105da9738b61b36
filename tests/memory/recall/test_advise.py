"""Advice goes from the general to the exact, and never claims more than it has seen."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from esper.memory.recall.advise import advise
from esper.memory.stores.store import Experience

ASKED = {"kind": "vector", "place": "first"}


def seen(won: int, lost: int, start: int = 0, **situation: str) -> list[Experience]:
    rewards = [1.0] * won + [0.0] * lost
    return [Experience(f"e{start + i}", reward, None, dict(situation)) for i, reward in enumerate(rewards)]


@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 60), st.integers(0, 60))
def test_the_interval_holds_the_mean_whatever_has_been_seen(a: int, b: int, c: int, d: int) -> None:
    experiences = [*seen(a, b, kind="image"), *seen(c, d, 1_000, kind="vector", place="first")]
    (told,) = advise(ASKED, {"mlp": experiences})
    assert 0 <= told.lower <= told.mean <= told.upper <= 1


def test_failures_only_make_the_upper_end_small_the_more_the_smaller() -> None:
    uppers = [
        advise(ASKED, {"mlp": [*seen(0, 20, kind="vector"), *seen(0, more, 1_000, **ASKED)]})[0].upper
        for more in (3, 10, 30)
    ]
    assert uppers == sorted(uppers, reverse=True)
    assert uppers[0] < 0.4
    assert uppers[-1] < 0.1


def test_what_is_exact_weighs_more_than_what_is_general() -> None:
    failed_here = [*seen(40, 0, kind="image"), *seen(0, 12, 1_000, **ASKED)]
    worked_here = [*seen(0, 40, kind="image"), *seen(12, 0, 1_000, **ASKED)]
    best, worst = advise(ASKED, {"one": failed_here, "two": worked_here})
    assert (best.action, worst.action) == ("two", "one")
    assert worst.mean < 0.3 < 0.7 < best.mean


def test_the_unknown_comes_before_what_works_half_the_time_and_behind_what_nearly_always_works() -> None:
    told = advise({}, {"unknown": [], "half": seen(10, 10), "nearly always": seen(18, 2)})
    assert [one.action for one in told] == ["nearly always", "unknown", "half"]


def test_a_single_number_is_tried_before_many_that_are_known() -> None:
    known = [Experience(f"e{place}", 1.0, 5.0 + place % 2, {}) for place in range(9)]
    told = advise({}, {"known": known, "once": [Experience("x", 1.0, 2.0, {})]}, numeric=True)
    assert [one.action for one in told] == ["once", "known"]
