"""The judge against scipy's paired test, its price, and simulations of runs in which nothing helps."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from esper.controller.judge import Judge, Stake
from esper.errors import ConfigurationError, EvaluateError

Losses = NDArray[np.float64]


def losses(seed: int, count: int) -> Losses:
    return np.random.default_rng(seed).gamma(2.0, 0.5, count)


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Losses, Losses]:
    """Losses of a host, and of a changed model that is on the whole better or worse by up to half a unit."""
    seed, count = draw(st.integers(0, 10_000)), draw(st.integers(2, 200))
    shift, noise = draw(st.floats(-0.5, 0.5)), draw(st.floats(0.01, 1.0))
    host = losses(seed, count)
    return host, host - shift + noise * np.random.default_rng(seed + 1).normal(size=count)


growths = st.floats(1.0, 8.0)


@given(pairs(), growths)
def test_a_graft_is_accepted_when_a_paired_t_test_finds_it_better_by_more_than_its_price(
    pair: tuple[Losses, Losses], growth: float
) -> None:
    host, grafted = pair
    judge = Judge(alpha=0.1, tests=4, price=0.05)
    verdict = judge.graft(host, grafted, growth=growth)
    test = stats.ttest_rel(host - verdict.price, grafted, alternative="greater")
    assert verdict.accepted == (test.pvalue < 0.025)
    assert verdict.alpha == 0.025
    assert verdict.gain == pytest.approx((host - grafted).mean())
    assert verdict.standard_error == pytest.approx(stats.sem(host - grafted))
    assert verdict.lower == pytest.approx(test.confidence_interval(0.975).low + verdict.price)
    assert verdict.detectable == pytest.approx(verdict.price + verdict.gain - verdict.lower)
    assert verdict.host_loss == pytest.approx(host.mean())
    assert verdict.num_examples == len(host)


@given(pairs(), st.floats(-1.0, 2.0), st.floats(0.0, 1.0))
def test_a_gain_within_a_share_of_what_the_host_learned_is_unsettled_where_it_would_have_been_accepted(
    pair: tuple[Losses, Losses], progress: float, share: float
) -> None:
    judge = Judge(alpha=0.1, tests=1, head_start=share)
    calm = judge.graft(*pair, growth=2.0)
    verdict = judge.graft(*pair, growth=2.0, progress=progress)
    assert not calm.unsettled
    assert verdict.unsettled == (calm.accepted and calm.lower <= share * progress)
    assert verdict.accepted == (calm.accepted and not verdict.unsettled)
    assert replace(verdict, accepted=calm.accepted, unsettled=False, reason=calm.reason) == calm
    if verdict.unsettled:
        learned = f"the host learned {progress:.4g} in the meantime"
        assert verdict.reason == f"gain {calm.gain:.4g} may be speed alone: {learned}"


@given(pairs())
def test_a_cut_is_accepted_when_a_paired_t_test_at_its_own_level_finds_the_rest_better(
    pair: tuple[Losses, Losses],
) -> None:
    host, without = pair
    verdict = Judge(cut_alpha=0.2, tests=1000).cut(host, without)
    assert verdict.accepted == (stats.ttest_rel(host, without, alternative="greater").pvalue < 0.2)
    assert (verdict.price, verdict.alpha) == (0.0, 0.2)


@pytest.mark.parametrize(("growth", "doublings"), [(1.0, 0), (0.5, 0), (2.0, 1), (4.0, 2), (8.0, 3)])
def test_the_price_is_once_for_being_there_and_once_more_for_every_doubling(
    growth: float, doublings: int
) -> None:
    host = losses(0, 50)
    verdict = Judge(price=0.02).graft(host, host, growth=growth)
    assert verdict.price == pytest.approx(0.02 * host.std() * (1 + doublings))


@given(pairs(), growths, st.sampled_from([1e-6, 0.5, 3.0, 1e6]), st.floats(-5.0, 5.0))
def test_the_units_and_the_zero_of_the_losses_do_not_matter(
    pair: tuple[Losses, Losses], growth: float, scale: float, shift: float
) -> None:
    host, grafted = pair
    judge = Judge(alpha=0.1, tests=1, price=0.05)
    verdict = judge.graft(host, grafted, growth=growth)
    other = judge.graft(scale * (host + shift), scale * (grafted + shift), growth=growth)
    margin = verdict.lower - verdict.price
    assert other.accepted == verdict.accepted or abs(margin) < 1e-9
    for name in ("gain", "standard_error", "lower", "price", "detectable"):
        wanted = scale * vars(verdict)[name]
        assert vars(other)[name] == pytest.approx(wanted, rel=1e-6, abs=1e-9 * scale)


@given(pairs(), growths, st.floats(0.0, 1.0), st.floats(0.0, 4.0))
def test_a_better_smaller_or_cheaper_graft_is_never_worse_off(
    pair: tuple[Losses, Losses], growth: float, better: float, larger: float
) -> None:
    host, grafted = pair
    judge = Judge(alpha=0.1, tests=3, price=0.05)
    verdict = judge.graft(host, grafted, growth=growth + larger)
    if not verdict.accepted:
        return
    assert judge.graft(host, grafted - better, growth=growth + larger).accepted
    assert judge.graft(host, grafted, growth=growth).accepted
    assert replace(judge, tests=1).graft(host, grafted, growth=growth + larger).accepted
    assert replace(judge, price=0.0).graft(host, grafted, growth=growth + larger).accepted
    assert judge.graft(np.tile(host, 4), np.tile(grafted, 4), growth=growth + larger).accepted


@given(pairs())
def test_what_is_accepted_was_never_called_hopeless(pair: tuple[Losses, Losses]) -> None:
    host, changed = pair
    difference = host - changed
    hopeless = Judge().hopeless(host, changed)
    assert hopeless == (difference.mean() + 2 * stats.sem(difference) <= 0)
    if Judge().graft(host, changed, growth=1.0).accepted:
        assert not hopeless


def test_a_gain_equal_to_the_price_is_not_enough() -> None:
    host = np.array([0.0, 2.0])
    assert not Judge(price=0.5).graft(host, host - 0.5, growth=1.0).accepted
    assert Judge(price=0.5).graft(host, host - 0.50001, growth=1.0).accepted
    assert not Judge().cut(host, host).accepted


def test_no_difference_at_all_is_refused_and_hopeless() -> None:
    host = losses(0, 50)
    verdict = Judge(price=0.0).graft(host, host.copy(), growth=1.0)
    assert (verdict.accepted, verdict.gain, verdict.lower, verdict.standard_error) == (False, 0.0, 0.0, 0.0)
    assert Judge().hopeless(host, host.copy())


def test_a_constant_gain_is_certain_and_two_examples_are_enough_for_it() -> None:
    host = np.array([1.0, 3.0])
    verdict = Judge(price=0.1).graft(host, host - 0.5, growth=1.0)
    assert verdict.accepted
    assert (verdict.gain, verdict.lower, verdict.standard_error) == (0.5, 0.5, 0.0)
    assert not Judge(price=0.1).graft(host, host + 0.5, growth=1.0).accepted


def test_two_uneven_examples_prove_little() -> None:
    host = np.array([1.0, 3.0])
    verdict = Judge().graft(host, np.array([0.5, 2.0]), growth=1.0)
    assert not verdict.accepted
    assert "2 examples show only" in verdict.reason


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("whose", ["host", "changed", "both"])
def test_losses_that_are_not_finite_are_refused_and_hopeless(bad: float, whose: str) -> None:
    host, changed = losses(0, 50), losses(0, 50) - 10.0
    if whose != "changed":
        host[3] = bad
    if whose != "host":
        changed[3] = bad
    for verdict in (Judge().graft(host, changed, growth=2.0), Judge().cut(host, changed)):
        assert verdict.accepted is False
        assert verdict.reason == "the held-out loss became infinite or undefined"
        unknown = (verdict.gain, verdict.standard_error, verdict.lower, verdict.detectable)
        assert all(map(math.isnan, unknown))
        assert verdict.num_examples == 50
        np.testing.assert_equal(verdict.host_loss, float(np.mean(host)))
    assert Judge().hopeless(host, changed)


def test_a_refusal_without_a_number_tells_what_was_asked() -> None:
    host, changed = losses(0, 50), np.full(50, math.nan)
    judge = Judge(alpha=0.02, tests=4, price=0.1, cut_alpha=0.03)
    asked = judge.graft(host, changed, growth=2.0)
    assert (asked.alpha, asked.price) == (0.005, pytest.approx(0.2 * host.std()))
    assert (judge.cut(host, changed).alpha, judge.cut(host, changed).price) == (0.03, 0.0)


def test_losses_of_other_examples_are_no_pairs() -> None:
    judge = Judge()
    for host, changed in ((losses(0, 50), losses(0, 49)), (losses(0, 50), losses(0, 1))):
        for ask in (judge.cut, judge.hopeless):
            with pytest.raises(EvaluateError, match="50 losses and then"):
                ask(host, changed)
        with pytest.raises(EvaluateError, match="the same held-out examples"):
            judge.graft(host, changed, growth=1.0)


def test_reasons_say_what_was_missing() -> None:
    rng = np.random.default_rng(0)
    host = rng.gamma(2.0, 0.5, 400)
    noise = 0.1 * rng.normal(size=400)
    judge = Judge(price=0.05)
    assert "above the price" in judge.graft(host, host - 0.5 + noise, growth=1.0).reason
    assert "does not reach the price" in judge.graft(host, host - 0.01 + noise, growth=1.0).reason
    verdict = judge.graft(host, host - 0.035 + noise, growth=1.0)
    assert "400 examples show only" in verdict.reason
    assert f"{verdict.detectable:.4g}" in verdict.reason


def test_a_gain_above_the_detectable_one_would_have_been_accepted_and_one_below_refused() -> None:
    rng = np.random.default_rng(1)
    host, noise = rng.gamma(2.0, 0.5, 300), rng.normal(size=300)
    noise -= noise.mean()
    judge = Judge()
    detectable = judge.graft(host, host + noise, growth=2.0).detectable
    assert judge.graft(host, host + noise - detectable * 1.001, growth=2.0).accepted
    assert not judge.graft(host, host + noise - detectable * 0.999, growth=2.0).accepted


def false_runs(judge: Judge, draw: str, *, runs: int, looks: int) -> float:
    """Share of runs in which one of ``looks`` useless candidates is accepted; 200 held-out examples."""
    rng = np.random.default_rng(0)
    host = rng.gamma(2.0, 0.5, 200)
    found = 0
    for _ in range(runs):
        shape = (looks, 200)
        noise = rng.normal(size=shape) if draw == "normal" else rng.exponential(size=shape) - 1.0
        found += any(judge.graft(host, host + 0.2 * row, growth=1.0).accepted for row in noise)
    return found / runs


@pytest.mark.parametrize("draw", ["normal", "skewed"])
def test_a_whole_run_of_useless_candidates_ends_without_a_graft_as_often_as_promised(draw: str) -> None:
    assert false_runs(Judge(alpha=0.1, tests=20), draw, runs=300, looks=20) < 0.1


def test_without_a_price_the_level_is_kept_and_used() -> None:
    share = false_runs(Judge(alpha=0.2, tests=10, price=0.0), "normal", runs=500, looks=10)
    assert 0.1 < share < 0.2 + 3 * math.sqrt(0.2 * 0.8 / 500)


def test_a_level_for_one_test_would_not_do_for_many() -> None:
    assert false_runs(Judge(alpha=0.1, tests=1, price=0.0), "normal", runs=200, looks=20) > 0.5


stakes = st.builds(Stake, spent=st.floats(0.0, 0.02), sessions=st.integers(1, 4))


@given(pairs(), stakes, st.integers(1, 9))
def test_a_part_goes_when_a_paired_t_test_finds_the_loss_to_rise_by_less_than_what_is_left_of_the_margin(
    pair: tuple[Losses, Losses], stake: Stake, looks: int
) -> None:
    host, without = pair
    judge = Judge(cut_alpha=0.1, margin=0.5)
    verdict = judge.prune(host, without, stake=stake, looks=looks)
    margin = (0.5 * host.std() - stake.spent) / stake.sessions
    test = stats.ttest_rel(without - max(margin, 0.0), host, alternative="less")
    assert verdict.accepted == (test.pvalue < 0.1 / looks)
    assert judge.prune(host, without).alpha == 0.1
    assert verdict.price == pytest.approx(-max(margin, 0.0))
    assert verdict.gain == pytest.approx((host - without).mean())


def test_what_changes_no_loss_goes_with_any_margin_and_any_number_of_examples() -> None:
    host = losses(0, 5)
    assert Judge(margin=0.0).prune(host, host.copy()).accepted
    assert Judge(margin=0.0).prune(host, host.copy(), stake=Stake(spent=1.0)).accepted
    assert not Judge(margin=0.0).prune(np.append(host, np.inf), np.append(host, np.inf)).accepted


def test_too_few_examples_prove_no_equivalence() -> None:
    generator = np.random.default_rng(0)
    host = losses(1, 4_000)
    without = host + 0.1 * generator.normal(size=4_000)
    few = Judge(margin=0.02).prune(host[:40], without[:40])
    assert not few.accepted
    assert "could be more than the margin" in few.reason
    many = Judge(margin=0.02).prune(host, without)
    assert many.accepted
    assert "at most the margin" in many.reason
    rise, most = (without - host).mean(), -many.lower
    assert rise < most
    assert many.reason.startswith(f"held-out loss {rise:+.3g}, ")
    assert many.reason.endswith(f"(up to {most:+.3g})")


@pytest.mark.parametrize("looks", [1, 8])
def test_what_costs_the_whole_margin_seldom_goes_however_often_it_is_looked_at(looks: int) -> None:
    judge, generator, wrong = Judge(cut_alpha=0.1, margin=0.05), np.random.default_rng(0), 0
    for run in range(400):
        host = losses(run, 200)
        noise = generator.normal(size=(looks, 200)).cumsum(axis=0)
        without = host + 0.05 * host.std() + 0.1 * noise
        wrong += any(judge.prune(host, own, looks=looks).accepted for own in without)
    assert wrong / 400 < 0.1 + 3 * math.sqrt(0.1 * 0.9 / 400)


@pytest.mark.parametrize(
    "wrong",
    [
        {"alpha": 0.0},
        {"alpha": 1.0},
        {"cut_alpha": 0.0},
        {"cut_alpha": 1.0},
        {"tests": 0},
        {"price": -0.1},
        {"margin": -0.1},
        {"head_start": -0.1},
        {"min_examples": 1},
    ],
    ids=str,
)
def test_settings_that_cannot_be_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(wrong))):
        Judge(**wrong)  # type: ignore[arg-type]


def test_settings_at_their_limits_are_taken() -> None:
    Judge(tests=1, price=0.0, margin=0.0, min_examples=2)
