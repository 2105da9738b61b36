"""The catalogue: blueprints by name, and what can be asked of a recipe. Does not know how a body is made."""

from __future__ import annotations

import contextlib
import difflib
import functools
import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import nn

from esper.blueprints.cost import Cost, count
from esper.errors import RecipeError
from esper.recipe import Option, Recipe
from esper.surgery.site import Kind, Port, Site

Pairs = tuple[tuple[Kind, Kind], ...]
Condition = Callable[[Port, Port], str | None]
Builder = Callable[..., nn.Module]
AnyBuilder = TypeVar("AnyBuilder", bound=Builder)

SAME_KIND: Pairs = (("vector", "vector"), ("sequence", "sequence"), ("signal", "signal"), ("image", "image"))

DEFAULT_RECIPES: tuple[Recipe, ...] = (
    Recipe.of("mlp", ratio=2.0),
    Recipe.of("bottleneck", ratio=0.25),
    Recipe.of("gated", ratio=1.0),
    Recipe.of("conv1d"),
    Recipe.of("conv2d"),
    Recipe.of("separable2d"),
    Recipe.of("dilated2d"),
    Recipe.of("squeeze_excite"),
    Recipe.of("gru"),
    Recipe.of("attention"),
    Recipe.of("ffn", ratio=4.0),
)


@dataclass(frozen=True)
class Blueprint:
    """How one family of grafts is built.

    ``pairs`` are the (source kind, target kind) pairs it fits; ``condition`` says in plain words why it
    does not fit a source and a target of such kinds, or None. ``builder(source, target, **options)`` returns
    the body: a module from a batch shaped like ``source`` to one shaped like ``target``, its last projection
    zero. A builder also runs on the meta device, to be counted: it may initialise values, not read them.
    One that is ``of_block`` is given the block of the site as well, and fits only where there is one.
    """

    name: str
    summary: str
    pairs: Pairs
    builder: Builder
    condition: Condition | None = None
    of_block: bool = False

    @property
    def options(self) -> dict[str, Option]:
        """The builder's keyword options and their defaults."""
        parameters = inspect.signature(self.builder).parameters.values()
        return {p.name: p.default for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}


_blueprints: dict[str, Blueprint] = {}


def blueprint(
    name: str,
    *,
    pairs: Iterable[tuple[Kind, Kind]],
    condition: Condition | None = None,
    of_block: bool = False,
) -> Callable[[AnyBuilder], AnyBuilder]:
    """Add a builder to the catalogue under ``name``; its docstring's first line becomes the summary.

    The builder takes ``(source, target)``, with ``of_block`` also the site's block of layers, and keyword-only options
    with defaults. Defining the same function
    again (a notebook cell run twice) replaces it; another function under a taken name raises RecipeError.
    """

    def register(builder: AnyBuilder) -> AnyBuilder:
        summary = (inspect.getdoc(builder) or "").partition("\n")[0]
        known = _blueprints.get(name)
        if known is not None and _origin(known.builder) != _origin(builder):
            taken_by = ".".join(_origin(known.builder))
            raise RecipeError(f"the name {name!r} is taken by {taken_by}; choose another")
        _blueprints[name] = Blueprint(name, summary, tuple(pairs), builder, condition, of_block)
        return builder

    return register


def names() -> tuple[str, ...]:
    """Every blueprint's name, in alphabetical order."""
    return tuple(sorted(_blueprints))


def find(name: str) -> Blueprint:
    """The blueprint of that name; RecipeError with near names if there is none."""
    if name in _blueprints:
        return _blueprints[name]
    near = difflib.get_close_matches(name, names(), n=3) or names()
    raise RecipeError(f"there is no blueprint {name!r}; did you mean {_either(near)}?")


def fits(recipe: Recipe, site: Site) -> str | None:
    """None when the recipe can be built for this site, else the reason in plain words.

    Raises RecipeError when the recipe itself is wrong: no such blueprint or option, or a value of the
    wrong type.
    """
    chosen = find(recipe.blueprint)
    _check_options(chosen, recipe)
    source, target = site.source, site.target
    if chosen.of_block:
        return None if site.block else f"{chosen.name} needs a block of the model's own layers here"
    if site.block is not None and site.block.bound:
        return f"{chosen.name} could not be folded here: only more units of the model's own layers can"
    if (source.kind, target.kind) not in chosen.pairs:
        return f"{chosen.name} does not go from {source.kind} to {target.kind}"
    if source.kind == target.kind == "sequence" and (
        (source.shape[0], source.batch_dim) != (target.shape[0], target.batch_dim)
    ):
        return f"{chosen.name} keeps a sequence's length and layout, and these differ: {source} → {target}"
    return chosen.condition(source, target) if chosen.condition else None


def build(recipe: Recipe, site: Site, *, seed: int) -> nn.Module:
    """The body of a fresh graft: float32, on the CPU, initial values from ``seed`` alone.

    Maps a batch shaped like ``site.source`` to one shaped like ``site.target``, and gives exactly zero until
    trained. Random streams stay untouched. Raises RecipeError when the recipe does not fit the site.
    """
    _require_fit(recipe, site)
    with _own_random_stream(seed):
        return _make(recipe, site, "cpu")


@functools.lru_cache(maxsize=4096)
def _cost(chosen: Blueprint, recipe: Recipe, site: Site) -> Cost:
    assert chosen.name == recipe.blueprint
    with _own_random_stream(0):
        return count(_make(recipe, site, "meta"), site.source)


def cost(recipe: Recipe, site: Site) -> Cost:
    """Exact parameters and multiply-adds per example of the recipe at this site, counted once.

    Raises RecipeError when the recipe does not fit the site.
    """
    _require_fit(recipe, site)
    chosen = find(recipe.blueprint)
    block = site.block if chosen.of_block else None
    return _cost(chosen, recipe, Site("ports", source=site.source, target=site.target, block=block))


def offers(site: Site, recipes: Sequence[Recipe] | None = None) -> tuple[Recipe, ...]:
    """Those of ``recipes`` (or of the default ones) that fit the site, in their order."""
    candidates = DEFAULT_RECIPES if recipes is None else recipes
    return tuple(recipe for recipe in candidates if fits(recipe, site) is None)


def _require_fit(recipe: Recipe, site: Site) -> None:
    reason = fits(recipe, site)
    if reason:
        raise RecipeError(f"{recipe} does not fit {site}: {reason}")


def _make(recipe: Recipe, site: Site, device: str) -> nn.Module:
    chosen = find(recipe.blueprint)
    block = (site.block,) if chosen.of_block else ()
    with torch.device(device):
        return chosen.builder(site.source, site.target, *block, **dict(recipe.options))


def _check_options(chosen: Blueprint, recipe: Recipe) -> None:
    known = chosen.options
    for name, value in recipe.options:
        if name not in known:
            raise RecipeError(f"{chosen.name} has no option {name!r}; it takes {', '.join(known) or 'none'}")
        wanted = type(known[name])
        if type(value) is not wanted and (wanted, type(value)) != (float, int):
            raise RecipeError(f"{chosen.name}: {name} must be {wanted.__name__}, not {value!r}")


@contextlib.contextmanager
def _own_random_stream(seed: int) -> Iterator[None]:
    """The CPU's random stream starts at ``seed`` and float32 is the default; both are put back afterwards.

    Seeds the CPU generator alone: ``torch.manual_seed`` would reseed every accelerator as well.
    """
    dtype = torch.get_default_dtype()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        torch.set_default_dtype(torch.float32)
        try:
            yield
        finally:
            torch.set_default_dtype(dtype)


def _origin(builder: Builder) -> tuple[str, str]:
    return builder.__module__, builder.__qualname__


def _either(choices: Sequence[str]) -> str:
    return " or ".join(choices)
