"""Changes are found where they were put, and seldom where none was."""

from __future__ import annotations

import random
from itertools import combinations, pairwise
from math import log
from statistics import fmean, pvariance

import pytest

from esper.errors import AnalysisError, ConfigurationError
from esper.memory.analysis import changepoints
from esper.memory.analysis.changepoints import _ranks


def _normal(seed, *means, each=30):
    chance = random.Random(seed)
    return [chance.gauss(mean, 1) for mean in means for _ in range(each)]


def test_two_changes_of_level_are_found_with_their_means(make_series):
    values = _normal(0, 10, 14, 8)
    found = changepoints(make_series(values))
    assert [one.index for one in found] == pytest.approx([30, 60], abs=1)
    assert [one.at for one in found] == [one.index for one in found]
    first, second = (one.index for one in found)
    assert (found[0].before, found[0].after) == (fmean(values[:first]), fmean(values[first:second]))
    assert (found[1].before, found[1].after) == (found[0].after, fmean(values[second:]))


def test_a_success_rate_that_falls_is_found(make_series):
    chance = random.Random(1)
    values = [float(chance.random() < rate) for rate in (0.9, 0.3) for _ in range(60)]
    (one,) = changepoints(make_series(values, "success"))
    assert one.index == pytest.approx(60, abs=5)
    assert one.before > 0.8
    assert one.after < 0.45


def test_noise_alone_shows_a_change_in_few_series_of_a_hundred(make_series):
    alarms = sum(bool(changepoints(make_series(_normal(seed, 0, each=60)))) for seed in range(100))
    assert alarms <= 5


def test_a_wild_value_is_no_change(make_series):
    values = _normal(2, 0, each=60)
    values[20:22] = [1e9, 1e9]
    assert changepoints(make_series(values)) == []


def test_only_the_order_of_the_values_counts(make_series):
    values = _normal(3, 1, 5)
    stretched = [2.0**value for value in values]
    assert [one.index for one in changepoints(make_series(values))] == [
        one.index for one in changepoints(make_series(stretched))
    ]


@pytest.mark.parametrize("seed", range(8))
def test_no_other_cut_into_up_to_three_would_cost_less(make_series, seed):
    values = _normal(seed, 0, 2, 1, each=8)
    ranks = _ranks(values)
    price = 2.5 * pvariance(ranks) * log(len(ranks))

    def cost(inner):
        ends = [0, *inner, len(ranks)]
        parts = [ranks[start:end] for start, end in pairwise(ends)]
        if min(map(len, parts)) < 5:
            return float("inf")
        return sum(len(part) * pvariance(part) for part in parts) + price * len(inner)

    cuts = [cut for size in range(3) for cut in combinations(range(5, len(ranks) - 4), size)]
    best = min(cuts, key=cost)
    assert cost([one.index for one in changepoints(make_series(values))]) == pytest.approx(cost(best))


def test_equal_values_share_their_rank():
    assert _ranks([5.0, 1.0, 5.0, 9.0]) == [2.0, 0.5, 2.0, 3.5]


def test_a_constant_series_never_changed(make_series):
    assert changepoints(make_series([1.0] * 20)) == []


def test_changes_lie_no_closer_than_asked(make_series):
    values = [*([0.0] * 20), *([9.0] * 6), *([0.0] * 20)]
    assert [one.index for one in changepoints(make_series(values), min_points=6, caution=0.5)] == [20, 26]
    wide = changepoints(make_series(values), min_points=8, caution=0.5)
    ends = [0, *(one.index for one in wide), len(values)]
    assert min(end - start for start, end in pairwise(ends)) >= 8


def test_too_few_points_are_refused(make_series):
    with pytest.raises(AnalysisError, match="9 points of latency are too few, 10 are needed"):
        changepoints(make_series(range(9)))


def test_without_ruptures_it_says_what_to_install(make_series, without):
    without("ruptures")
    with pytest.raises(ConfigurationError, match=r"pip install 'esper-grow\[analysis\]'"):
        changepoints(make_series(range(20)))
