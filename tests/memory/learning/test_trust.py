"""Trust is the Beta posterior that scipy knows, to the accuracy that is claimed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta

from esper.memory.learning.merge import DAY, HALF_LIFE, decayed, seen, trust, used
from esper.memory.learning.trust import trust_of
from esper.memory.records import Tally

COUNTS = st.floats(0, 500)


@given(COUNTS, COUNTS)
def test_the_interval_is_close_to_the_exact_one(successes, failures):
    told = trust_of(successes, failures)
    exact = beta(1 + successes, 1 + failures)
    assert told.mean == pytest.approx(exact.mean())
    assert told.lower == pytest.approx(exact.ppf(0.05), abs=0.015)
    assert told.upper == pytest.approx(exact.ppf(0.95), abs=0.015)


@given(COUNTS, COUNTS, st.floats(0.5, 10))
def test_more_successes_never_lower_trust(successes, failures, more):
    before, after = trust_of(successes, failures), trust_of(successes + more, failures)
    assert after.mean >= before.mean
    assert after.lower >= before.lower
    assert after.hopeful >= before.hopeful - 1e-9


def test_what_is_little_known_is_hoped_for_more_than_its_lower_bound_says():
    assert trust_of(0, 0).hopeful > trust_of(0, 0).lower


def test_evidence_counts_half_after_the_half_life_and_never_more():
    tally = Tally(successes=8.0, failures=2.0)
    assert decayed(tally, HALF_LIFE * DAY)[1:] == (4.0, 1.0)
    assert decayed(tally, DAY - 1) == (0, 8.0, 2.0)


def test_many_small_ages_decay_as_much_as_one_long_one():
    tally = Tally(successes=8.0)
    for hour in range(0, HALF_LIFE * 24 + 1, 7):
        tally = seen(tally, 0.0, hour * DAY // 24)
    assert tally.successes == pytest.approx(4.0, rel=0.02)


def test_what_harms_retires_and_comes_back_when_it_helps():
    tally = Tally()
    for _ in range(3):
        tally = used(tally, 0.0, 0)
    assert tally.state == "retired"
    while trust(tally, 0).mean <= 0.5:
        assert tally.state == "retired"
        tally = seen(tally, 1.0, 0)
    assert tally.state == "active"


def test_two_failures_alone_retire_nothing():
    assert seen(seen(Tally(), 0.0, 0), 0.0, 0).state == "active"
