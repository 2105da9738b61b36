"""Trials are spared on enough evidence only, and a wrong adviser costs little."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esper.controller.advised import Advised, Caution, Opinion
from esper.controller.rules import Rules, View
from esper.errors import ConfigurationError
from esper.events import Score
from esper.memory.learning.trust import trust_of

HOPELESS = Opinion("a mlp", mean=0.02, upper=0.12, usual=0.4, num_episodes=20, evidence=("e1",))
NEVER = Caution(explore=10**9)


@dataclass
class Told:
    """An adviser with fixed opinions, that notes what was spared."""

    known: Mapping[str, Opinion] = field(default_factory=dict)
    spared: list[Opinion] = field(default_factory=list)

    def opinions(self, scores: Sequence[Score]) -> Mapping[str, Opinion]:
        return {s.candidate: self.known[s.candidate] for s in scores if s.candidate in self.known}

    def spare(self, opinions: Sequence[Opinion]) -> None:
        self.spared.extend(opinions)


def score(site: str, value: float) -> Score:
    return Score(candidate=f"{site} mlp", site=site, gain=2 * value, r2=0.5, score=value, params=10, macs=20)


SCORES = [score("a", 3.0), score("b", 2.0), score("c", 1.0)]


def test_a_trial_that_is_known_to_fail_is_spared_and_nothing_takes_its_place():
    adviser = Told({"a mlp": HOPELESS})
    assert Advised(Rules(), adviser, NEVER).choose(SCORES) == ["b mlp"]
    assert adviser.spared == [HOPELESS]


@pytest.mark.parametrize(
    "known",
    [
        replace(HOPELESS, num_episodes=2),
        replace(HOPELESS, upper=0.3),
        replace(HOPELESS, usual=0.1),
    ],
    ids=["two episodes", "worth a trial", "no worse than usual"],
)
def test_a_trial_is_held_where_evidence_does_not_speak_against_it(known: Opinion):
    adviser = Told({"a mlp": known})
    assert Advised(Rules(), adviser, NEVER).choose(SCORES) == ["a mlp", "b mlp"]
    assert adviser.spared == []


def test_where_no_trial_has_a_chance_the_hopeless_ones_are_spared_too():
    adviser = Told({"a mlp": replace(HOPELESS, mean=0.01, upper=0.05, usual=0.02)})
    assert Advised(Rules(), adviser, NEVER).choose(SCORES) == ["b mlp"]


def test_one_in_ten_of_the_spared_trials_is_held_all_the_same():
    adviser = Told({"a mlp": HOPELESS})
    advised = Advised(Rules(), adviser)
    held = sum("a mlp" in advised.choose([score("a", 1.0 + i)]) for i in range(1_000))
    assert 60 < held < 140
    assert len(adviser.spared) == 1_000 - held


@given(st.floats(0.01, 100), st.integers(0, 30), st.floats(0, 1), st.floats(0, 1))
def test_the_same_view_has_the_same_answer_and_it_is_a_part_of_what_the_rules_chose(
    value: float, num: int, upper: float, usual: float
):
    known = {"a mlp": replace(HOPELESS, num_episodes=num, upper=upper, usual=usual)}
    scores = [score("a", value), *SCORES[1:]]
    chosen = Advised(Rules(), Told(known)).choose(scores)
    assert chosen == Advised(Rules(), Told(known)).choose(scores)
    assert [name for name in Rules().choose(scores) if name in chosen] == chosen


def test_everything_else_is_as_the_rules_have_it():
    rules, view = Rules(stop_after=2), View([], [], {})
    advised = Advised(rules, Told())
    assert advised.pace(1_000) == rules.pace(1_000)
    assert advised.propose(view) == rules.propose(view)
    assert advised.halve(SCORES) == rules.halve(SCORES)
    assert [advised.rest(n) for n in range(4)] == [rules.rest(n) for n in range(4)]


@pytest.mark.parametrize("chance", [0.05, 0.2, 0.5])
def test_experience_that_knows_nothing_of_situations_spares_at_most_a_tenth_of_the_trials(chance: float):
    """Outcomes drawn without regard to the situation, in forty memories of ten situations with twelve trials each."""
    lot = random.Random(0)
    spared = []
    for _ in range(40):
        won = [sum(lot.random() < chance for _ in range(12)) for _ in range(10)]
        usual = (1 + sum(won)) / (2 + 120)
        for wins in won:
            trust = trust_of(wins, 12 - wins)
            spared.append(NEVER.spares(Opinion("a", trust.mean, trust.upper, usual, 12)))
    assert sum(spared) / len(spared) <= 0.1


def test_an_opinion_that_is_no_number_spares_nothing():
    assert not NEVER.spares(replace(HOPELESS, upper=math.nan))


@pytest.mark.parametrize("wrong", [{"min_episodes": 0}, {"explore": 0}, {"worth": 0.05}, {"worth": 1.0}])
def test_impossible_cautions_are_refused(wrong: dict[str, float]):
    with pytest.raises(ConfigurationError):
        Caution(**wrong)
