"""How a Grower is made for a benchmark, and the controller that picks by chance. Trains nothing."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F

from benchmarks.arms import Session
from benchmarks.data import Rows
from esper import Budget, Grower, Judge, Recipe, held_out
from esper.blueprints.catalogue import DEFAULT_RECIPES
from esper.controller.candidate import Candidate
from esper.controller.rules import Controller, Pace, Rules, View
from esper.events import Score
from esper.growth.held_out import HeldOut
from esper.growth.run_memory import RunMemory
from esper.growth.work import Joining

VECTOR_RECIPES = (
    Recipe.of("conv1d", channels=25),
    Recipe.of("mlp", ratio=2.0),
    Recipe.of("gated", ratio=1.0),
)

STEPWISE = tuple(Recipe.of("widen", ratio=ratio) for ratio in (1.0, 3.0))
WIDENING = tuple(Recipe.of("widen", ratio=ratio) for ratio in (1.0, 4.0, 16.0))


@dataclass(frozen=True)
class Chance:
    """The rules with choices made by lot.

    As many candidates learn in the shadow as go to trial, drawn at random. Same recipes, pace, trials and
    judge. The lot depends on the view and ``seed`` alone.
    """

    seed: int
    rules: Rules = field(default_factory=Rules)

    def pace(self, total_steps: int | None) -> Pace:
        """That of the rules."""
        return self.rules.pace(total_steps)

    def propose(self, view: View) -> Sequence[Candidate]:
        """As many candidates as go to trial."""
        lot = random.Random(f"{self.seed} {len(view.candidates)} {sorted(view.refusals.items())}")
        return lot.sample(list(view.candidates), min(self.rules.num_trials, len(view.candidates)))

    def halve(self, scores: Sequence[Score]) -> Sequence[str]:
        """All go on."""
        return [score.candidate for score in scores]

    def choose(self, scores: Sequence[Score]) -> Sequence[str]:
        """All go to trial, whatever their score."""
        return [score.candidate for score in scores]

    def rest(self, num_refusals: int) -> int | None:
        """That of the rules."""
        return self.rules.rest(num_refusals)


def evaluation(rows: Rows, batch: int) -> HeldOut:
    """Per-example held-out losses over ``rows``, read ``batch`` at a time."""
    batches = zip(torch.split(rows.x, batch), torch.split(rows.y, batch), strict=True)
    return held_out(list(batches), F.cross_entropy)


def grower(
    session: Session,
    *,
    recipes: Sequence[Recipe] | None = None,
    controller: Controller | None = None,
    budget: Budget | None = None,
    memory: RunMemory | None = None,
    judge: Judge | None = None,
    join: Joining = "finish",
) -> Grower:
    """A Grower for ``session``, everything not named here at its default."""
    return Grower(
        session.model,
        session.optimizer,
        evaluate=evaluation(session.held_out, session.plan.batch),
        total_steps=session.plan.steps,
        scheduler=session.scheduler,
        budget=budget or Budget(),
        recipes=recipes,
        controller=controller,
        memory=memory,
        judge=judge or Judge(),
        join=join,
        seed=session.seed,
    )


def by_rules(session: Session) -> Grower:
    """Three recipes for vectors, chosen by shadow score."""
    return grower(session, recipes=VECTOR_RECIPES)


def by_widening(session: Session) -> Grower:
    """The layers that are there, made up to 17 times as wide; shadows and trials of half the usual length (LOG.md)."""
    return grower(session, recipes=WIDENING, controller=Rules(updates=150, trial=150, rest_steps=20))


def round_by_round(session: Session) -> Grower:
    """The layers made two or four times as wide, and again: new units join them before the next round.

    At half the usual price: what is grown in two rounds pays for being there twice.
    """
    rules = Rules(updates=100, trial=150, rest_steps=20)
    return grower(session, recipes=STEPWISE, controller=rules, judge=Judge(price=0.005), join="rounds")


def by_chance(session: Session) -> Grower:
    """The same three recipes, chosen by lot."""
    return grower(session, recipes=VECTOR_RECIPES, controller=Chance(session.seed))


def large_catalogue(session: Session) -> Grower:
    """The whole catalogue and widening where size hardly matters: a quarter of the price, up to 20 times as large."""
    recipes = (*DEFAULT_RECIPES, *(recipe for recipe in WIDENING if recipe not in DEFAULT_RECIPES))
    return grower(session, recipes=recipes, budget=Budget(params_ratio=20.0), judge=Judge(price=0.0025))


def whole_catalogue(session: Session) -> Grower:
    """Every recipe that the catalogue offers by default."""
    return grower(session)
