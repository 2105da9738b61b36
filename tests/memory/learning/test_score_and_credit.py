"""Scores add up and never reward fast wrong work; credit follows its formula."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esper.memory.learning.credit import DISCOUNT, credit
from esper.memory.learning.score import efficiency, score
from esper.memory.records import Outcome, Step
from esper.memory.stores.store import Effort

EFFORTS = st.builds(Effort, st.integers(0, 100), st.floats(0, 1e4), st.integers(0, 10**6))
STEPS = st.lists(st.sampled_from(["a", "b", "a!", "b!"]), max_size=12).map(
    lambda names: tuple(
        Step(number=place, tool=name[0], error="bad" if name.endswith("!") else None)
        for place, name in enumerate(names, start=1)
    )
)
SIMILAR = st.lists(EFFORTS, max_size=12)
CHECKED = st.none() | st.floats(0, 1)


@given(STEPS, STEPS, EFFORTS, EFFORTS, SIMILAR)
def test_fast_wrong_work_never_outscores_slow_right_work(right, wrong, slow, fast, similar):
    good = score(Outcome(ending="success"), right, slow, similar)
    for outcome in (
        Outcome(ending="failure"),
        Outcome(ending="partial", share=0.75),
        Outcome(ending="abstained"),
    ):
        assert score(outcome, wrong, fast, similar).total < good.total


@given(STEPS, EFFORTS, SIMILAR, st.sampled_from(["success", "partial", "failure", "abstained"]), CHECKED)
def test_parts_add_up_within_bounds(steps, effort, similar, ending, verified):
    told = score(Outcome(ending=ending, share=0.5, verified=verified), steps, effort, similar)
    parts = (told.outcome, told.efficiency, told.recovery, told.verification)
    assert told.total == pytest.approx(sum(parts))
    assert min(parts) >= 0
    assert told.total <= 1 + 1e-9


def test_a_check_says_more_than_the_agents_own_word():
    denied = Outcome(ending="success", verified=0.0)
    confirmed = Outcome(ending="failure", verified=1.0)
    assert denied.reward < 0.5 < confirmed.reward


def test_efficiency_is_neutral_before_five_similar_tasks_and_a_rank_after():
    similar = [Effort(number, float(number), number) for number in (10, 20, 30, 40)]
    assert efficiency(Effort(1, 1.0, 1), similar) == 0.5
    similar.append(Effort(50, 50.0, 50))
    assert efficiency(Effort(1, 1.0, 1), similar) == 1.0
    assert efficiency(Effort(30, 30.0, 30), similar) == 0.5
    assert efficiency(Effort(99, 99.0, 99), similar) == 0.0


def test_credit_is_handed_back_by_the_formula():
    steps = (Step(number=1, tool="a", error="bad"), Step(number=2, tool="b"), Step(number=3, tool="b"))
    last = 1.0
    second = 0.5 * 1.0 + 0.5 * DISCOUNT * last
    assert credit(steps, 1.0) == (DISCOUNT * second, second, last)
    assert credit(steps, 0.0)[0] == -1.0
    assert credit((), 1.0) == ()
