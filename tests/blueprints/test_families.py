"""What each family is made of, by hand formulas and by what it can see."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from esper.blueprints import Cost, build, cost
from esper.recipe import Recipe
from esper.surgery.site import Port, Site


def site(source: Port, target: Port) -> Site:
    return Site("a", source=source, target=target)


def vector(width: int) -> Port:
    return Port("vector", (width,))


def image(channels: int, size: int) -> Port:
    return Port("image", (channels, size, size))


REFERENCE_TRUNK = Cost(params=7_982, macs=25 * (5 * 19 + 75 * 10 + 75 * 5) + 125 * 32)
GRU = Cost(params=3 * 16 * (8 + 16 + 2) + 17 * 8, macs=20 * (3 * 16 * (8 + 16) + 16 * 8))
ATTENTION = Cost(params=2 * 16 + 16 * 48 + 17 * 16, macs=12 * (16 * 48 + 16 * 16) + 2 * 12 * 12 * 16)


@pytest.mark.parametrize(
    ("recipe", "place", "expected"),
    [
        (Recipe.of("conv1d"), site(vector(40), vector(32)), REFERENCE_TRUNK),
        (Recipe.of("mlp", hidden=64), site(vector(32), vector(4)), Cost(33 * 64 + 65 * 4, 64 * 36)),
        (Recipe.of("gated", hidden=5), site(vector(3), vector(7)), Cost(4 * 10 + 6 * 7, 30 + 35)),
        (
            Recipe.of("bottleneck", rank=3),
            site(vector(100), vector(9)),
            Cost(300 + 64 + 272 + 153, 300 + 48 + 256 + 144),
        ),
        (
            Recipe.of("bottleneck"),
            site(vector(1000), vector(1000)),
            Cost(16_000 + 17 * 64 + 65 * 64 + 65_000, 16_000 + 1024 + 4096 + 64_000),
        ),
        (Recipe.of("ffn", hidden=20), site(vector(8), vector(6)), Cost(16 + 180 + 126, 160 + 120)),
        (Recipe.of("gru"), site(Port("sequence", (20, 8)), Port("sequence", (20, 8))), GRU),
        (
            Recipe.of("attention"),
            site(Port("sequence", (12, 16), 1), Port("sequence", (12, 16), 1)),
            ATTENTION,
        ),
        (
            Recipe.of("conv2d", channels=4),
            site(image(3, 8), image(5, 4)),
            Cost(28 * 4 + 2 * 37 * 4 + 25, 16 * (27 * 4 + 2 * 36 * 4 + 20)),
        ),
        (
            Recipe.of("separable2d", channels=4),
            site(image(3, 8), image(5, 8)),
            Cost(27 + 16 + 2 * (36 + 20) + 25, 64 * (27 + 12 + 2 * (36 + 16) + 20)),
        ),
        (Recipe.of("squeeze_excite"), site(image(16, 8), image(16, 8)), Cost(17 * 8 + 9 * 16, 256)),
    ],
    ids=lambda value: str(value) if isinstance(value, Recipe) else "",
)
def test_cost_equals_the_hand_formula(recipe: Recipe, place: Site, expected: Cost) -> None:
    assert cost(recipe, place) == expected


def test_the_default_convolution_over_features_is_the_reference_trunk() -> None:
    layers = list(build(Recipe.of("conv1d"), site(vector(40), vector(32)), seed=0))
    convolutions = [layer for layer in layers if isinstance(layer, nn.Conv1d)]
    assert [(c.in_channels, c.out_channels, c.kernel_size, c.stride, c.padding) for c in convolutions] == [
        (1, 25, (5,), (2,), (1,)),
        (25, 25, (3,), (2,), (1,)),
        (25, 25, (3,), (2,), (1,)),
    ]
    assert (layers[-1].in_features, layers[-1].out_features) == (125, 32)


@pytest.mark.parametrize(
    ("width_in", "width_out", "hidden"), [(32, 32, 64), (4, 32, 23), (2, 1, 16), (784, 10, 177)]
)
def test_a_hidden_layer_is_sized_by_both_widths(width_in: int, width_out: int, hidden: int) -> None:
    body = build(Recipe.of("mlp"), site(vector(width_in), vector(width_out)), seed=0)
    assert body[0].out_features == hidden


def seen(recipe: Recipe, place: Site, at: tuple[int, ...]) -> torch.Tensor:
    """Where the output of a body with random weights depends on input ``at``: a mask without batch."""
    body = build(recipe, place, seed=0)
    for parameter in body.parameters():
        nn.init.normal_(parameter, std=0.5)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(place.source.batched(8), generator=generator)
    other = x.clone()
    other[(slice(None), *at)] += 1.0
    return (body(x) != body(other)).any(0)


def test_dilation_sees_farther_than_a_dense_convolution() -> None:
    place = site(image(2, 21), image(2, 21))
    near = seen(Recipe.of("conv2d"), place, (0, 10, 10)).any(0).nonzero()
    far = seen(Recipe.of("dilated2d"), place, (0, 10, 10)).any(0).nonzero()
    assert (near.min().item(), near.max().item()) == (7, 13)
    assert (far.min().item(), far.max().item()) == (3, 17)


def test_a_recurrent_reader_carries_the_first_position_to_the_last() -> None:
    port = Port("sequence", (9, 4), 0)
    assert seen(Recipe.of("gru"), site(port, port), (0, 1)).any(1).all()
    assert seen(Recipe.of("gru"), site(port, vector(3)), (0, 1)).all()


@pytest.mark.parametrize("name", ["attention", "squeeze_excite", "conv1d"])
def test_a_body_that_is_not_causal_also_reads_later_positions(name: str) -> None:
    port = Port("sequence", (4, 8), 0)
    assert seen(Recipe.of(name, causal=False), site(port, port), (2, 1)).any(1).all()


def test_attention_over_an_image_reads_every_position() -> None:
    assert seen(Recipe.of("attention"), site(image(8, 4), image(8, 4)), (1, 0, 0)).any(0).all()


def test_a_gate_beside_equal_widths_multiplies_the_source_itself() -> None:
    port = Port("signal", (6, 10))
    body = build(Recipe.of("squeeze_excite"), site(port, port), seed=0)
    last = [module for module in body.modules() if isinstance(module, nn.Conv1d)][-1]
    nn.init.ones_(last.bias)
    x = torch.randn(3, 6, 10)
    assert torch.equal(body(x), x)
