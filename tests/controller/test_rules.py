"""Fixed rules: the same view gives the same answer, within bounds, whatever the order or the numbers."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from esper.controller.candidate import Candidate
from esper.controller.rules import Rules, View
from esper.errors import ConfigurationError
from esper.events import Score, Signal
from esper.recipe import Recipe
from esper.surgery.site import Port, Site

RECIPES = tuple(Recipe.of("mlp", ratio=float(ratio)) for ratio in range(1, 5))
NAMES = ("fc1", "fc2", "fc3", "fc4", "fc5")
PORT = Port("vector", (8,))


def candidate(site: str, recipe: Recipe = RECIPES[0]) -> Candidate:
    return Candidate(Site(site, PORT, PORT), recipe, params=10, macs=20)


def signal(site: str, gain: float) -> Signal:
    return Signal(
        site=site,
        variance=1.0,
        dead_ratio=0.0,
        correlation=0.0,
        effective_rank=1.0,
        gradient_norm=1.0,
        novelty_gain=gain,
        health=1.0,
    )


def score(site: str, value: float, *, r2: float = 0.5, gain: float | None = None, recipe: int = 0) -> Score:
    return Score(
        candidate=candidate(site, RECIPES[recipe]).name,
        site=site,
        gain=value / max(r2, 1e-9) if gain is None else gain,
        r2=r2,
        score=value,
        params=10,
        macs=20,
    )


ALL = [candidate(site, recipe) for site in NAMES for recipe in RECIPES]


@st.composite
def views(draw: st.DrawFn) -> View:
    """Some candidates, signals of some of their sites (ties are likely), and refusals of some of them."""
    candidates = draw(st.lists(st.sampled_from(ALL), unique_by=lambda c: c.name))
    gains = draw(st.dictionaries(st.sampled_from(NAMES), st.sampled_from([-1.0, 0.0, 0.5, math.nan, 3.0])))
    refusals = draw(st.dictionaries(st.sampled_from([c.name for c in ALL]), st.integers(1, 3)))
    return View(candidates, [signal(site, gain) for site, gain in gains.items()], refusals)


@st.composite
def scores(draw: st.DrawFn) -> list[Score]:
    """Scores of some candidates; ties, losses and values that are not numbers included."""
    chosen = draw(st.lists(st.sampled_from(ALL), unique_by=lambda c: c.name, max_size=12))
    values = st.sampled_from([-2.0, 0.0, 0.1, 0.1, 1.0, math.nan, math.inf])
    return [
        Score(
            candidate=c.name,
            site=c.site.name,
            gain=draw(values),
            r2=draw(values),
            score=draw(values),
            params=1,
            macs=1,
        )
        for c in chosen
    ]


@given(views(), st.integers(1, 30), st.randoms(use_true_random=False))
def test_proposals_fill_the_shadow_with_candidates_of_the_view_whatever_their_order(
    view: View, num_shadows: int, random_: random.Random
) -> None:
    rules = Rules(num_shadows=num_shadows)
    proposed = rules.propose(view)
    assert len(proposed) == min(num_shadows, len(view.candidates))
    assert len({c.name for c in proposed}) == len(proposed)
    assert {c.name for c in proposed} <= {c.name for c in view.candidates}
    shuffled = list(view.candidates)
    random_.shuffle(shuffled)
    assert rules.propose(replace(view, candidates=shuffled)) == proposed


@given(views())
def test_proposals_come_by_refusals_then_need_then_name(view: View) -> None:
    def place(c: Candidate, key: Callable[[Signal], float]) -> int:
        keys = {s.site: key(s) for s in view.signals}
        return sum(other < keys[c.site.name] for other in keys.values()) if c.site.name in keys else 1000

    def need(c: Candidate) -> int:
        novelty = place(c, lambda s: math.inf if math.isnan(s.novelty_gain) else -s.novelty_gain)
        return novelty + place(c, lambda s: s.effective_rank)

    keys = [(view.refusals.get(c.name, 0), need(c), c.name) for c in Rules().propose(view)]
    assert keys == sorted(keys)


def test_the_site_with_the_largest_novelty_comes_first_with_all_its_recipes() -> None:
    view = View(ALL, [signal("fc3", 2.0), signal("fc1", 1.0)], {})
    proposed = Rules(num_shadows=6).propose(view)
    assert [c.site.name for c in proposed] == ["fc3"] * 4 + ["fc1"] * 2


def test_among_equally_novel_sites_the_one_of_lowest_rank_comes_first_and_an_unmeasured_rank_last() -> None:
    ranks = {"fc1": math.nan, "fc2": 0.9, "fc3": 0.2}
    view = View(
        ALL, [structs.replace(signal(site, 1.0), effective_rank=rank) for site, rank in ranks.items()], {}
    )
    proposed = Rules(num_shadows=len(ALL)).propose(view)
    measured = [name for name in dict.fromkeys(c.site.name for c in proposed) if name in ranks]
    assert measured == ["fc3", "fc2", "fc1"]


def test_what_a_trial_has_refused_waits_for_what_has_not_been_tried() -> None:
    refused = candidate("fc3").name
    view = View(ALL, [signal("fc3", 2.0)], {refused: 1})
    assert refused not in {c.name for c in Rules(num_shadows=len(ALL) - 1).propose(view)}
    assert Rules(num_shadows=len(ALL)).propose(view)[-1].name == refused


def test_nothing_to_propose_is_nothing_proposed() -> None:
    assert list(Rules().propose(View([], [], {}))) == []


@given(scores(), st.integers(1, 5), st.floats(0.0, 1.0), st.randoms(use_true_random=False))
def test_survivors_are_the_best_and_never_fewer_than_go_to_trial(
    found: list[Score], num_trials: int, survivors: float, random_: random.Random
) -> None:
    rules = Rules(num_trials=num_trials, survivors=survivors)
    kept = list(rules.halve(found))
    assert len(kept) == min(len(found), max(math.ceil(survivors * len(found)), num_trials))
    shuffled = list(found)
    random_.shuffle(shuffled)
    assert list(rules.halve(shuffled)) == kept
    values = {s.candidate: -math.inf if math.isnan(s.score) else s.score for s in found}
    dropped = set(values) - set(kept)
    assert all(values[out] <= values[name] for out in dropped for name in kept)


@given(scores(), st.integers(1, 5), st.randoms(use_true_random=False))
def test_trials_are_few_worthy_best_first_and_of_different_sites(
    found: list[Score], num_trials: int, random_: random.Random
) -> None:
    rules = Rules(num_trials=num_trials)
    chosen = list(rules.choose(found))
    shuffled = list(found)
    random_.shuffle(shuffled)
    assert list(rules.choose(shuffled)) == chosen
    by_name = {s.candidate: s for s in found}
    picked = [by_name[name] for name in chosen]
    worthy = [s for s in found if s.r2 > 0 and s.gain > 0]
    assert len(picked) == min(num_trials, len({s.site for s in worthy}))
    assert all(s in worthy for s in picked)
    assert len({s.site for s in picked}) == len(picked)


def test_the_best_of_each_site_goes_to_trial_and_ties_go_by_name() -> None:
    found = [
        score("fc2", 3.0, recipe=1),
        score("fc2", 4.0, recipe=2),
        score("fc1", 1.0, recipe=3),
        score("fc1", 1.0, recipe=0),
        score("fc3", 0.5),
    ]
    chosen = Rules(num_trials=2).choose(found)
    assert list(chosen) == [candidate("fc2", RECIPES[2]).name, candidate("fc1", RECIPES[0]).name]


@pytest.mark.parametrize(
    "poor",
    [
        score("fc1", 0.0, r2=0.0, gain=1.0),
        score("fc1", 0.0, r2=-0.2, gain=1.0),
        score("fc1", -0.1, r2=0.1, gain=-1.0),
    ],
)
def test_what_explains_nothing_or_gains_nothing_is_not_tried(poor: Score) -> None:
    assert list(Rules().choose([poor])) == []
    assert list(Rules().choose([])) == []


def test_a_threshold_for_the_explained_share_can_be_set() -> None:
    found = [score("fc1", 1.0, r2=0.2), score("fc2", 0.5, r2=0.4)]
    assert list(Rules(min_r2=0.3).choose(found)) == [candidate("fc2").name]


def test_without_a_length_the_pace_is_as_given_and_growth_never_closes() -> None:
    rules = Rules(start=7, sense=3, updates=50, trial=60, rest_steps=20)
    pace = rules.pace(None)
    assert (pace.start, pace.sense, pace.shadow, pace.trial, pace.rest) == (7, 3, 50, 60, 20)
    assert pace.last is None
    assert pace.round == 113


@given(st.integers(1, 100_000), st.floats(0.01, 1.0))
def test_in_short_runs_no_part_of_a_round_takes_more_than_a_twentieth(total: int, close: float) -> None:
    rules = Rules(close=close)
    pace = rules.pace(total)
    parts = (pace.sense, pace.shadow, pace.trial, pace.rest)
    asked = (rules.sense, rules.updates, rules.trial, rules.rest_steps)
    for part, wanted in zip(parts, asked, strict=True):
        assert 1 <= part <= wanted
        assert part == wanted or part == max(total // 20, 1)
    assert pace.last is not None
    assert 0 <= pace.last <= total
    assert pace.last == int(close * total)


def test_long_runs_keep_the_pace_that_was_asked_for() -> None:
    pace = Rules().pace(6_000)
    assert (pace.sense, pace.shadow, pace.trial, pace.rest, pace.last) == (10, 300, 300, 100, 3_600)


def test_rests_double_with_every_refusal_in_a_row_until_growth_ends() -> None:
    rules = Rules(stop_after=4)
    assert [rules.rest(refusals) for refusals in range(6)] == [1, 2, 4, 8, None, None]


@pytest.mark.parametrize(
    "wrong",
    [
        *({name: 0} for name in ("num_shadows", "num_trials", "sense", "updates", "trial")),
        {"close": 0.0},
        {"close": 1.01},
        {"smaller": 0.0},
        {"smaller": 1.01},
    ],
    ids=str,
)
def test_settings_that_cannot_be_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError, match=r"at least 1|(close|smaller) must be"):
        Rules(**wrong)  # type: ignore[arg-type]


def test_settings_at_their_limits_are_taken() -> None:
    Rules(num_shadows=1, num_trials=1, sense=1, updates=1, trial=1, close=1.0)
    Rules(close=0.001)


def test_a_candidate_is_named_after_its_site_and_recipe() -> None:
    span = Site("fc2", PORT, PORT, "fc1")
    assert candidate("fc1").name == "fc1 mlp(ratio=1.0)"
    assert Candidate(span, Recipe.of("gru"), 1, 1).name == "fc1..fc2 gru"


def test_of_one_blueprint_in_several_sizes_the_smallest_that_scores_enough_goes_to_trial() -> None:
    sizes = [
        structs.replace(score("fc1", value, recipe=number), params=10 * (number + 1))
        for number, value in enumerate([0.2, 0.5, 0.9, 1.0])
    ]
    wanted = {1.0: 3, 0.95: 3, 0.9: 2, 0.5: 1, 0.3: 1, 0.2: 0}
    for smaller, number in wanted.items():
        assert list(Rules(smaller=smaller).choose(sizes)) == [candidate("fc1", RECIPES[number]).name]


def test_another_blueprint_or_site_is_no_size_of_the_best() -> None:
    best = structs.replace(score("fc1", 1.0), params=1_000)
    other = structs.replace(score("fc1", 0.9), candidate=f"fc1 {Recipe.of('gated', ratio=1.0)}", params=1)
    elsewhere = structs.replace(score("fc2", 0.9), params=1)
    chosen = Rules(smaller=0.5).choose([best, other, elsewhere])
    assert list(chosen) == [best.candidate, elsewhere.candidate]


def test_all_sizes_of_what_survives_go_on_where_a_smaller_one_may_be_enough() -> None:
    found = [
        score("fc1", 1.0),
        score("fc1", 0.1, recipe=1),
        score("fc2", 0.9),
        score("fc3", 0.5),
        score("fc3", 0.01, recipe=2),
    ]
    rules = Rules(smaller=0.5, survivors=0.1)
    assert list(rules.halve(found)) == [found[0].candidate, found[2].candidate, found[1].candidate]
    assert list(Rules(survivors=0.1).halve(found)) == [found[0].candidate, found[2].candidate]
