"""What a Grower is given is looked at, and refused where it cannot be grown or judged by. Changes nothing.

The errors say what to do.
"""

from __future__ import annotations

import gc
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import torch

from esper.blueprints.birth import check_birth
from esper.blueprints.catalogue import DEFAULT_RECIPES, Blueprint, find, fits
from esper.controller.judge import Judge
from esper.errors import ConfigurationError, EvaluateError, RecipeError
from esper.growth.host import Host, Losses
from esper.recipe import Recipe
from esper.surgery.block import Block
from esper.surgery.blocks import find_blocks
from esper.surgery.fold import obstacles
from esper.surgery.heads import find_heads
from esper.surgery.isolation import isolated
from esper.surgery.site import Port, Site
from esper.surgery.sites import SiteMap, discover
from esper.surgery.size_reads import without_read_sizes
from esper.surgery.trace import Trace, trace

_passed: set[tuple[Blueprint, Recipe, Port, Port, Block | None]] = set()
"""What has been checked at birth in this process, and where."""


def check_types(evaluate: object, recipes: Sequence[object] | None, total_steps: int | None) -> None:
    """Raises ConfigurationError for what cannot be meant."""
    if total_steps is not None and total_steps < 1:
        raise ConfigurationError(f"total_steps must be at least 1, got {total_steps}")
    if not callable(evaluate):
        raise EvaluateError(
            f"evaluate is a {type(evaluate).__name__}, not a function of the model: use esper.held_out(loader, loss)"
        )
    for recipe in recipes or ():
        if not isinstance(recipe, Recipe):
            raise RecipeError(f"{recipe!r} is not a recipe: write esper.Recipe.of({str(recipe)!r})")


def _warn_of_weak_scores(host: Host) -> None:
    if not host.differentiable:
        warnings.warn(
            "evaluate gives no gradients, so candidates are scored on training batches: weaker scores, same judge; "
            "take evaluate out of no_grad, or use esper.held_out(loader, loss)",
            stacklevel=4,
        )


@contextmanager
def _uncollected() -> Iterator[None]:
    """Puts the garbage collector off: it would look again and again at the many small objects that are made, and stay.

    With a thousand layers that is a third of the time.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def explore(host: Host, judge: Judge) -> SiteMap:
    """Trace one held-out batch, find the sites, and check what ``evaluate`` returns.

    Raises EvaluateError when that cannot be judged by, SiteError when there is no site.
    """
    with _uncollected():
        seen = _traced(host)
        found = discover(seen)
    _check_losses(host.examine(), judge)
    _warn_of_weak_scores(host)
    with _uncollected():
        return _with_blocks(host, seen, found)


def explore_again(host: Host) -> SiteMap:
    """Trace one held-out batch of the model as it is now, with no graft in it, and find the sites."""
    with _uncollected():
        seen = _traced(host)
        return _with_blocks(host, seen, discover(seen))


def _traced(host: Host) -> Trace:
    with isolated(host.model, eval_mode=True):
        return trace(host.model, partial(host.glimpse, host.model))


def _with_blocks(host: Host, seen: Trace, found: SiteMap) -> SiteMap:
    spans = [site for site in found.offers if site.is_span]
    blocked = obstacles(seen, spans)
    again = partial(host.glimpse, host.model)
    blocks = without_read_sizes(
        host.model, find_blocks(seen, spans, blocked=blocked), again, anywhere=host.anywhere
    )
    heads = find_heads(seen, spans, again)
    left = {name: reason for name, reason in blocked.items() if name not in blocks.found}
    return replace((discover(seen, blocked=left) if left else found).with_blocks(blocks), heads=heads)


def check_recipes(recipes: Sequence[Recipe] | None, sites: Sequence[Site]) -> None:
    """The house's own recipes have passed the check at birth in its tests, those of a user pass it here.

    Raises RecipeError for one that does not, and when none of them fits any site.
    """
    places = {recipe: [s for s in sites if fits(recipe, s) is None] for recipe in recipes or ()}
    if places and not any(places.values()):
        raise RecipeError("none of the recipes fits any site: leave recipes out to have the catalogue's")
    for recipe in set(places) - set(DEFAULT_RECIPES):
        for site in {(s.source, s.target): s for s in places[recipe]}.values():
            _check_once(recipe, site)


def _check_once(recipe: Recipe, site: Site) -> None:
    """Under one name a user may declare another blueprint later; one that fails, fails every time."""
    birth = find(recipe.blueprint), recipe, site.source, site.target, site.block
    if birth not in _passed:
        check_birth(recipe, site)
        _passed.add(birth)


def _check_losses(losses: Losses, judge: Judge) -> None:
    if len(losses) < judge.min_examples:
        raise EvaluateError(
            f"{len(losses)} held-out examples are too few to judge by (at least {judge.min_examples}): hold out more, "
            "or lower Judge(min_examples=...)"
        )
    if not bool(torch.isfinite(torch.from_numpy(losses)).all()):
        raise EvaluateError(
            "a held-out loss is not finite before growth begins: mend the model or the data first"
        )
