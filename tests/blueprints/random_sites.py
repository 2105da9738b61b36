"""Random sites of every kind, and the default recipes that fit them."""

from __future__ import annotations

from hypothesis import strategies as st

from esper.blueprints import DEFAULT_RECIPES, fits
from esper.recipe import Recipe
from esper.surgery.site import Port, Site

WIDTHS = st.integers(1, 40)
RECIPES = (
    *DEFAULT_RECIPES,
    Recipe.of("conv1d", channels=5, causal=False),
    Recipe.of("attention", causal=False, head_width=4),
    Recipe.of("squeeze_excite", causal=False),
    Recipe.of("lora"),
    Recipe.of("lora", rank=2, kernel=3),
)


@st.composite
def sites(draw: st.DrawFn) -> Site:
    """A site whose ports have small random widths and lengths; target lengths follow a random law."""
    kind = draw(st.sampled_from(("vector", "sequence", "signal", "image")))
    if kind == "vector":
        return _site(Port("vector", (draw(WIDTHS),)), Port("vector", (draw(WIDTHS),)))
    if kind == "sequence":
        length, batch_dim = draw(st.integers(1, 9)), draw(st.sampled_from((0, 1)))
        source, target = (Port("sequence", (length, draw(WIDTHS)), batch_dim) for _ in range(2))
        return _site(source, draw(st.sampled_from((target, Port("vector", (target.width,))))))
    lengths = tuple(draw(st.integers(1, 12)) for _ in range(1 if kind == "signal" else 2))
    source = Port(kind, (draw(WIDTHS), *lengths))
    target = Port(kind, (draw(WIDTHS), *draw(_other_lengths(lengths))))
    return _site(source, draw(st.sampled_from((target, Port("vector", (target.width,))))))


def _other_lengths(lengths: tuple[int, ...]) -> st.SearchStrategy[tuple[int, ...]]:
    halved = tuple(-(-length // 2) for length in lengths)
    trimmed = tuple(max(1, length - 2) for length in lengths)
    doubled = tuple(2 * length for length in lengths)
    return st.sampled_from((lengths, lengths, halved, trimmed, doubled, (5,) * len(lengths)))


@st.composite
def fitting(draw: st.DrawFn) -> tuple[Recipe, Site]:
    """A random site and a recipe that fits it."""
    site = draw(sites().filter(lambda site: any(fits(recipe, site) is None for recipe in RECIPES)))
    return draw(st.sampled_from([recipe for recipe in RECIPES if fits(recipe, site) is None])), site


def _site(source: Port, target: Port) -> Site:
    return Site("entry", source=source, target=target)
