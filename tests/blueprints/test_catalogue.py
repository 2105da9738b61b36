"""Names, options, fits and offers of the catalogue."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import nn

from esper.blueprints import (
    DEFAULT_RECIPES,
    blueprint,
    build,
    catalogue,
    check_birth,
    cost,
    find,
    fits,
    names,
    offers,
)
from esper.errors import RecipeError
from esper.recipe import Recipe
from esper.surgery.site import Port, Site

VECTORS = Site("fc1", source=Port("vector", (40,)), target=Port("vector", (32,)))


@pytest.fixture(autouse=True)
def _same_catalogue_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "_blueprints", dict(catalogue._blueprints))


def sine(source: Port, target: Port, *, ratio: float = 2.0) -> nn.Module:
    """Sines of a few linear features."""
    hidden = nn.Linear(source.width, int(ratio * target.width))
    last = nn.Linear(int(ratio * target.width), target.width)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(hidden, nn.Tanh(), last)


def test_every_blueprint_says_what_it_is() -> None:
    assert len(names()) == 13
    for name in names():
        assert find(name).summary.endswith(".")
        assert all(isinstance(default, int | float | str) for default in find(name).options.values())


def test_an_unknown_name_lists_near_ones() -> None:
    with pytest.raises(RecipeError, match=r"'convld'; did you mean .*conv1d"):
        find("convld")
    with pytest.raises(RecipeError, match="attention or bottleneck"):
        find("zzz")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ratoi": 2.0}, "no option 'ratoi'; it takes ratio, hidden"),
        ({"ratio": "big"}, "ratio must be float, not 'big'"),
        ({"hidden": 2.5}, "hidden must be int, not 2.5"),
        ({"hidden": True}, "hidden must be int, not True"),
    ],
)
def test_a_wrong_option_is_an_error_wherever_the_recipe_is_used(
    options: dict[str, float], message: str
) -> None:
    for use in (fits, cost, check_birth):
        with pytest.raises(RecipeError, match=message):
            use(Recipe.of("mlp", **options), VECTORS)


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe.of("mlp", ratio=0.0),
        Recipe.of("mlp", hidden=-1),
        Recipe.of("bottleneck", ratio=-1.0),
        Recipe.of("bottleneck", rank=-1),
        Recipe.of("conv1d", channels=-2),
    ],
)
def test_impossible_sizes_are_refused(recipe: Recipe) -> None:
    with pytest.raises(RecipeError, match="must be positive"):
        build(recipe, VECTORS, seed=0)


@pytest.mark.parametrize(
    ("recipe", "option"),
    [(Recipe.of("attention", head_width=0), "head_width"), (Recipe.of("squeeze_excite", ratio=0.0), "ratio")],
)
def test_impossible_sizes_over_sequences_are_refused(recipe: Recipe, option: str) -> None:
    port = Port("sequence", (5, 8))
    with pytest.raises(RecipeError, match=f"{option} must be positive"):
        build(recipe, Site("a", source=port, target=port), seed=0)


def test_an_impossible_dilation_is_refused() -> None:
    port = Port("image", (3, 8, 8))
    with pytest.raises(RecipeError, match="dilation must be positive"):
        build(Recipe.of("dilated2d", dilation=0), Site("a", source=port, target=port), seed=0)


def test_a_whole_number_is_a_fine_ratio() -> None:
    assert cost(Recipe.of("mlp", ratio=2), VECTORS) == cost(Recipe.of("mlp", ratio=2.0), VECTORS)


@pytest.mark.parametrize(
    ("name", "source", "target", "reason"),
    [
        ("conv1d", Port("vector", (7,)), Port("vector", (9,)), "too few to slide over"),
        ("conv2d", Port("vector", (9,)), Port("vector", (9,)), "does not go from vector to vector"),
        ("mlp", Port("image", (3, 8, 8)), Port("vector", (9,)), "does not go from image to vector"),
        ("mlp", Port("sequence", (5, 8)), Port("sequence", (4, 8)), "keeps a sequence's length"),
        (
            "mlp",
            Port("sequence", (5, 8)),
            Port("sequence", (5, 8), 1),
            "keeps a sequence's length and layout",
        ),
        ("gru", Port("vector", (3,)), Port("vector", (9,)), "does not go from vector to vector"),
        ("gru", Port("signal", (3, 1)), Port("vector", (9,)), "no order to read"),
        ("attention", Port("sequence", (1, 8)), Port("sequence", (1, 8)), "nothing to attend to"),
        ("attention", Port("image", (8, 17, 16)), Port("image", (8, 17, 16)), "272 positions are too many"),
        ("attention", Port("image", (8, 8, 8)), Port("image", (8, 4, 4)), "keeps the positions"),
        ("ffn", Port("vector", (3,)), Port("vector", (9,)), "normalising 3 features"),
    ],
)
def test_what_does_not_fit_says_why(name: str, source: Port, target: Port, reason: str) -> None:
    site = Site("a", source=source, target=target)
    assert reason in (fits(Recipe.of(name), site) or "")
    for use in (cost, check_birth):
        with pytest.raises(RecipeError, match="does not fit a "):
            use(Recipe.of(name), site)
    assert offers(site, [Recipe.of(name)]) == ()


def test_offers_are_the_default_recipes_that_fit_in_their_order() -> None:
    assert [recipe.blueprint for recipe in offers(VECTORS)] == [
        "mlp",
        "bottleneck",
        "gated",
        "conv1d",
        "ffn",
    ]
    assert set(offers(VECTORS)) < set(DEFAULT_RECIPES)
    wide = Recipe.of("mlp", ratio=8.0)
    assert offers(VECTORS, [Recipe.of("conv2d"), wide]) == (wide,)


def test_a_users_own_blueprint_is_found_built_counted_and_offered() -> None:
    blueprint("sine", pairs=[("vector", "vector")])(sine)
    recipe = Recipe.of("sine", ratio=1.0)
    assert find("sine").summary == "Sines of a few linear features."
    assert offers(VECTORS, [recipe]) == (recipe,)
    assert cost(recipe, VECTORS).params == 41 * 32 + 33 * 32
    check_birth(recipe, VECTORS)


def test_the_same_function_may_be_defined_again_but_a_name_belongs_to_one() -> None:
    blueprint("sine", pairs=[("vector", "vector")])(sine)
    blueprint("sine", pairs=[("vector", "vector"), ("sequence", "sequence")])(sine)
    assert len(find("sine").pairs) == 2
    with pytest.raises(RecipeError, match=r"'mlp' is taken by esper\.blueprints\.mlp\.mlp"):
        blueprint("mlp", pairs=[("vector", "vector")])(sine)


def test_a_redefined_blueprint_is_counted_anew() -> None:
    def body(source: Port, target: Port) -> nn.Module:
        return nn.Linear(source.width, target.width)

    blueprint("linear", pairs=[("vector", "vector")])(body)
    before = cost(Recipe.of("linear"), VECTORS)

    def body(source: Port, target: Port) -> nn.Module:
        return nn.Linear(source.width, target.width, bias=False)

    blueprint("linear", pairs=[("vector", "vector")])(body)
    assert cost(Recipe.of("linear"), VECTORS).params == before.params - 32


@pytest.fixture
def other_defaults() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    torch.set_default_device("meta")
    yield
    torch.set_default_dtype(torch.float32)
    torch.set_default_device(None)


@pytest.mark.usefixtures("other_defaults")
def test_bodies_are_float32_on_the_cpu_whatever_the_defaults() -> None:
    body = build(Recipe.of("mlp"), VECTORS, seed=0)
    assert {(p.dtype, p.device.type) for p in body.parameters()} == {(torch.float32, "cpu")}
    assert torch.get_default_dtype() == torch.float64


def test_a_rebuilt_body_has_the_same_values_under_another_default_dtype() -> None:
    expected = build(Recipe.of("mlp"), VECTORS, seed=3).state_dict()
    torch.set_default_dtype(torch.float64)
    try:
        actual = build(Recipe.of("mlp"), VECTORS, seed=3).state_dict()
    finally:
        torch.set_default_dtype(torch.float32)
    assert all(torch.equal(actual[name], expected[name]) for name in expected)
