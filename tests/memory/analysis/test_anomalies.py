"""Anomalies are the noise points of DBSCAN, as scikit-learn finds them."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.cluster import DBSCAN

from esper.memory.analysis.anomalies import _core, _noise, _within, anomalies


def test_two_wild_values_among_a_hundred_are_found(make_series):
    chance = random.Random(0)
    values = [chance.gauss(10, 1) for _ in range(100)]
    values[30], values[77] = 40, 0.5
    found = anomalies(make_series(values))
    assert [one.index for one in found] == [30, 77]
    assert [one.point.value for one in found] == [40, 0.5]
    assert found[0].distance == 40 - max(value for value in values if value < 40)


def test_a_new_level_and_a_trend_are_no_anomalies(make_series):
    chance = random.Random(1)
    levels = [chance.gauss(mean, 1) for mean in (10, 30) for _ in range(20)]
    rising = [chance.gauss(number, 1) for number in range(60)]
    assert anomalies(make_series(levels)) == []
    assert anomalies(make_series(rising)) == []


def test_a_rare_failure_stands_apart_until_it_is_common(make_series):
    assert [one.index for one in anomalies(make_series([1.0] * 20 + [0.0] * 4, "success"))] == [
        20,
        21,
        22,
        23,
    ]
    assert anomalies(make_series([1.0] * 20 + [0.0] * 5, "success")) == []


def test_a_short_or_constant_series_has_none(make_series):
    assert anomalies(make_series([])) == []
    assert anomalies(make_series([1, 2, 300, 4])) == []
    assert anomalies(make_series([3.0] * 30)) == []


def test_the_reach_is_in_standard_deviations_of_the_noise():
    chance = random.Random(2)
    values = [chance.gauss(0, 7) for _ in range(4_000)]
    assert _noise(values) == pytest.approx(7, rel=0.05)
    assert _noise([value + place for place, value in enumerate(values)]) == pytest.approx(7, rel=0.05)


def test_without_any_cluster_there_is_no_distance(make_series):
    found = anomalies(make_series([1, 100, 10_000, 1_000_000, 100_000_000]), reach=0.001)
    assert [one.distance for one in found] == [None] * 5


WHOLE = st.lists(st.integers(0, 60), min_size=1, max_size=60)


@given(values=WHOLE, radius=st.integers(1, 6), neighbours=st.integers(1, 6))
def test_noise_and_core_points_are_those_of_scikit_learn(values, radius, neighbours):
    reference = DBSCAN(eps=radius, min_samples=neighbours, algorithm="brute").fit(
        np.array(values).reshape(-1, 1)
    )
    core = _core(values, radius, neighbours)
    assert core == sorted(values[place] for place in reference.core_sample_indices_)
    noise = [place for place, value in enumerate(values) if _within(core, value, radius) == 0]
    assert noise == np.flatnonzero(reference.labels_ == -1).tolist()
