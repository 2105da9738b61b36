"""A budget counts what the host had at the start, and says which limit would be exceeded."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esper.growth.budget import SMALL, Budget, Size

START = Size(params=SMALL, macs=10 * SMALL)
sizes = st.builds(Size, params=st.integers(0, 10**9), macs=st.integers(0, 10**9))


@pytest.mark.parametrize(
    ("budget", "end", "grafts", "words"),
    [
        (Budget(), Size(4 * SMALL + 1, 0), 1, f"{4 * SMALL + 1:,} parameters would .* of {4 * SMALL:,}"),
        (
            Budget(macs_ratio=2.0),
            Size(0, 20 * SMALL + 1),
            1,
            f"{20 * SMALL + 1:,} multiply-adds .* of {20 * SMALL:,}",
        ),
        (Budget(params_ratio=None, params=5_000), Size(5_001, 0), 1, "5,001 parameters .* of 5,000"),
        (Budget(params_ratio=None, macs=3), Size(0, 4), 1, "4 multiply-adds .* of 3"),
        (Budget(params_ratio=None, grafts=2), Size(0, 0), 3, "3 grafts .* of 2"),
    ],
)
def test_each_limit_refuses_what_lies_above_it(budget: Budget, end: Size, grafts: int, words: str) -> None:
    reason = budget.refuses(START, end, grafts)
    assert reason is not None
    assert re.search(words, reason)


@pytest.mark.parametrize(
    ("budget", "end", "grafts"),
    [
        (Budget(), Size(4 * SMALL, 10**9), 99),
        (Budget(params_ratio=None), Size(10**9, 10**9), 99),
        (Budget(macs_ratio=2.0, params=100, macs=20 * SMALL, grafts=1), Size(100, 20 * SMALL), 1),
    ],
)
def test_what_lies_on_a_limit_is_allowed_and_none_is_no_limit(budget: Budget, end: Size, grafts: int) -> None:
    assert budget.refuses(START, end, grafts) is None


def test_a_ratio_of_almost_nothing_still_leaves_room() -> None:
    assert Budget(params_ratio=1.0, macs_ratio=1.0).refuses(Size(3, 3), Size(SMALL, SMALL), 1) is None
    assert Budget(params_ratio=1.0).refuses(Size(3, 3), Size(SMALL + 1, 0), 1) is not None
    assert Budget(params=5).refuses(Size(3, 3), Size(6, 0), 1) is not None


@given(start=sizes, end=sizes, more=sizes, ratio=st.floats(0.1, 100))
def test_what_is_too_large_stays_too_large_when_it_grows(
    start: Size, end: Size, more: Size, ratio: float
) -> None:
    budget = Budget(params_ratio=ratio, macs_ratio=ratio)
    if budget.refuses(start, end, 1) is not None:
        assert budget.refuses(start, end + more, 1) is not None


@given(size=sizes, added=sizes)
def test_growth_is_one_for_nothing_and_never_less(size: Size, added: Size) -> None:
    assert Size(max(size.params, 1), max(size.macs, 1)).growth(Size(0, 0)) == 1.0
    assert Size(max(size.params, 1), max(size.macs, 1)).growth(added) >= 1.0


def test_growth_is_the_mean_over_parameters_and_multiply_adds() -> None:
    assert Size(100, 1_000).growth(Size(100, 500)) == 0.5 * (2.0 + 1.5)
