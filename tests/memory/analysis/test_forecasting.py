"""Forecasts agree with published ones, with the formulas, and with what then comes."""

from __future__ import annotations

import random
from statistics import NormalDist

import pytest

from esper.errors import AnalysisError, ConfigurationError
from esper.memory.analysis import forecast

# Oil production in Saudi Arabia, 1996 to 2007: Hyndman and Athanasopoulos, "Forecasting: Principles and Practice", 7.1.
OIL = (
    *(446.6565, 454.4733, 455.663, 423.6322, 456.2713, 440.5881),
    *(425.3325, 485.1494, 506.0482, 526.792, 514.2689, 494.211),
)
OIL_SMOOTHING, OIL_LEVEL, OIL_NEXT = 0.891998, 447.478440, 496.493543


def _noise(seed, count, scale=1.0):
    chance = random.Random(seed)
    return [chance.gauss(0, scale) for _ in range(count)]


def test_the_published_forecast_of_oil_production_comes_out(make_series):
    found = forecast(make_series(OIL), 3)
    assert [one.mean for one in found] == pytest.approx([OIL_NEXT] * 3, rel=1e-4)


def test_the_intervals_are_those_of_the_formula(make_series):
    """Variance at h steps: s² (1 + (h - 1) a²), s² the mean squared error (Hyndman et al., table 6.2)."""
    level, squares = OIL_LEVEL, 0.0
    for value in OIL:
        squares += (value - level) ** 2
        level += OIL_SMOOTHING * (value - level)
    found = forecast(make_series(OIL), 4, level=0.8)
    for steps, one in enumerate(found):
        spread = (squares / len(OIL) * (1 + steps * OIL_SMOOTHING**2)) ** 0.5
        half = NormalDist().inv_cdf(0.9) * spread
        assert (one.lower, one.upper) == pytest.approx((OIL_NEXT - half, OIL_NEXT + half), rel=2e-3)


def test_noise_around_a_level_is_forecast_as_that_level(make_series):
    values = [50 + noise for noise in _noise(2, 80)]
    (one,) = forecast(make_series(values), 1)
    assert one.mean == pytest.approx(50, abs=0.5)
    assert one.upper - one.lower == pytest.approx(2 * 1.645, rel=0.3)


def test_a_trend_goes_on(make_series):
    values = [100 + 2 * place + noise for place, noise in enumerate(_noise(3, 50))]
    found = forecast(make_series(values), 3)
    assert [one.mean for one in found] == pytest.approx([200, 202, 204], abs=2.5)


def test_what_comes_lies_in_the_interval_about_as_often_as_it_says(make_series):
    inside = 0
    for seed in range(40):
        *values, coming = [10 + noise for noise in _noise(seed, 31)]
        (one,) = forecast(make_series(values), 1, level=0.8)
        inside += one.lower <= coming <= one.upper
    assert 25 <= inside <= 39


def test_no_forecast_leaves_the_values_that_can_be(make_series):
    chance = random.Random(4)
    rates = [min(1.0, 0.3 + 0.04 * place + chance.gauss(0, 0.02)) for place in range(18)]
    for one in forecast(make_series(rates, "success"), 10):
        assert 0 <= one.lower <= one.mean <= one.upper <= 1
    falling = [max(0.0, 50 - 3 * place + chance.gauss(0, 1)) for place in range(17)]
    assert all(one.lower >= 0 for one in forecast(make_series(falling, "tokens"), 10))


def test_the_unit_does_not_matter(make_series):
    found = forecast(make_series([value * 1e6 for value in OIL]), 1)[0]
    same = forecast(make_series(OIL), 1)[0]
    assert (found.mean, found.lower) == pytest.approx((same.mean * 1e6, same.lower * 1e6), rel=1e-6)


def test_what_never_varied_stays_as_it_is(make_series):
    (one,) = forecast(make_series([0.7] * 12, "success"), 1)
    assert (one.mean, one.lower, one.upper) == pytest.approx((0.7, 0.7, 0.7))
    assert forecast(make_series([0.0] * 12), 2)[1].upper == 0


def test_too_few_points_and_impossible_questions_are_refused(make_series):
    with pytest.raises(AnalysisError, match="9 points of latency are too few, 10 are needed"):
        forecast(make_series(range(9)), 1)
    for horizon, level in ((0, 0.9), (1, 0.0), (1, 1.0)):
        with pytest.raises(AnalysisError, match="horizon is at least 1"):
            forecast(make_series(OIL), horizon, level=level)


def test_without_statsmodels_it_says_what_to_install(make_series, without):
    without("statsmodels")
    with pytest.raises(ConfigurationError, match=r"pip install 'esper-grow\[analysis\]'"):
        forecast(make_series(OIL), 1)
