"""A linear graft beside a linear layer melts into it: same function, same objects, no trace."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from esper.blueprints import build, fits
from esper.recipe import Recipe
from esper.surgery.graft import Graft, all_grafts, attach, cut
from esper.surgery.merge import merge, mergeable
from esper.surgery.site import Port, Site
from esper.surgery.sites import discover
from esper.surgery.trace import trace

some = settings(max_examples=30, deadline=None)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def site_at(model: nn.Module, x: Tensor, name: str = "0") -> Site:
    offers = discover(trace(model, lambda: model(x).sum())).offers
    return next(site for site in offers if site.name == name)


def awake(site: Site, recipe: Recipe, *, seed: int = 0) -> Graft:
    graft = Graft(build(recipe, site, seed=seed), site, recipe)
    with torch.no_grad():
        for number, parameter in enumerate(graft.parameters()):
            parameter.copy_(normal(*parameter.shape, seed=seed + number))
    return graft


def grafted(model: nn.Module, site: Site, body: nn.Module) -> Graft:
    graft = Graft(body, site, Recipe.of("own"))
    attach(model, graft)
    return graft


@some
@given(
    st.integers(1, 2),
    st.integers(1, 5),
    st.sampled_from((1, 3)),
    st.integers(0, 3),
    st.integers(1, 2),
    st.integers(1, 2),
)
def test_a_convolution_melts_into_one_that_covers_it_or_stays(
    dimensions: int, kernel: int, own: int, padding: int, stride: int, dilation: int
) -> None:
    length = 9
    conv = (nn.Conv1d, nn.Conv2d)[dimensions - 1]
    assume(length + 2 * padding > dilation * (kernel - 1))
    torch.manual_seed(0)
    host = conv(2, 3, kernel, padding=padding, stride=stride, dilation=dilation).double()
    model, x = nn.Sequential(host, nn.Tanh()), normal(4, 2, *[length] * dimensions)
    site, recipe = site_at(model, x), Recipe.of("lora", rank=2, kernel=own)
    attach(model, awake(site, recipe))
    before, weight, places = model(x), host.weight, mergeable(model)
    num_gone = len(merge(model, places))
    torch.testing.assert_close(model(x), before)
    assert host.weight is weight
    assert bool(places) == (all_grafts(model) == [])
    assert num_gone == 2 * len(places)


@pytest.mark.parametrize(
    ("host", "own", "shape"),
    [
        (nn.Linear(5, 4), 1, (3, 5)),
        (nn.Linear(5, 4, bias=False), 1, (3, 6, 5)),
        (nn.Conv1d(2, 3, 3, padding=1), 3, (4, 2, 9)),
        (nn.Conv1d(2, 3, 5, padding="same"), 3, (4, 2, 9)),
        (nn.Conv2d(2, 3, 3, padding=1, stride=2), 3, (4, 2, 8, 9)),
        (nn.Conv2d(2, 3, 3, padding=1, stride=2), 1, (4, 2, 9, 8)),
        (nn.Conv2d(2, 3, (3, 5), padding=(1, 2)), 3, (4, 2, 8, 8)),
        (nn.Conv2d(2, 3, 3), 3, (4, 2, 8, 8)),
        (nn.Conv2d(2, 3, 5), 3, (4, 2, 10, 10)),
        (nn.Conv2d(2, 3, 5, padding="valid"), 1, (4, 2, 10, 11)),
    ],
    ids=str,
)
def test_a_low_rank_graft_melts(host: nn.Module, own: int, shape: tuple[int, ...]) -> None:
    model, x = nn.Sequential(host, nn.Tanh()).double(), normal(*shape)
    attach(model, awake(site_at(model, x), Recipe.of("lora", rank=2, kernel=own)))
    before, plain = model(x), host.weight.detach().clone()
    assert mergeable(model) == [("0", 0)]
    merge(model, [("0", 0)])
    torch.testing.assert_close(model(x), before)
    assert not torch.equal(host.weight, plain)
    assert "grafts" not in dict(host.named_children())
    assert not host._forward_hooks


def test_a_body_with_biases_melts_into_a_layer_with_a_bias_only() -> None:
    body = nn.Sequential(nn.Linear(5, 3), nn.Identity(), nn.Sequential(nn.Linear(3, 4))).double()
    x = normal(3, 5)
    for bias in (True, False):
        model = nn.Sequential(nn.Linear(5, 4, bias=bias), nn.ReLU()).double()
        grafted(model, site_at(model, x), body)
        before = model(x)
        assert bool(mergeable(model)) is bias
        merge(model, mergeable(model))
        torch.testing.assert_close(model(x), before)


def test_several_grafts_melt_and_the_others_stay_in_their_order() -> None:
    model, x = nn.Sequential(nn.Linear(5, 4), nn.ReLU()).double(), normal(3, 5)
    site = site_at(model, x)
    for number, recipe in enumerate((Recipe.of("lora"), Recipe.of("mlp"), Recipe.of("lora", rank=1))):
        attach(model, awake(site, recipe, seed=number))
    before = model(x)
    assert mergeable(model) == [("0", 0), ("0", 2)]
    merge(model, mergeable(model))
    assert [graft.recipe.blueprint for _, graft in all_grafts(model)] == ["mlp"]
    torch.testing.assert_close(model(x), before)


def _tied() -> nn.Module:
    model = nn.Sequential(nn.Linear(5, 5), nn.Linear(5, 5))
    model[1].weight = model[0].weight
    return model


class Halved(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) / 2


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (_tied, (3, 5)),
        (lambda: nn.Sequential(weight_norm(nn.Linear(5, 5)), nn.ReLU()), (3, 5)),
        (lambda: nn.Sequential(Halved(5, 5), nn.ReLU()), (3, 5)),
        (lambda: nn.Sequential(nn.Conv1d(4, 4, 3, padding=1, groups=2), nn.ReLU()), (3, 4, 8)),
        (lambda: nn.Sequential(nn.Conv1d(4, 4, 3, padding=1, padding_mode="circular")), (3, 4, 8)),
        (lambda: nn.Sequential(nn.LSTM(5, 5, batch_first=True)), (3, 4, 5)),
    ],
    ids=["tied", "weight_norm", "other_forward", "grouped", "circular", "lstm"],
)
def test_what_is_no_plain_linear_layer_keeps_its_graft(
    make: Callable[[], Any], shape: tuple[int, ...]
) -> None:
    model, x = make().double(), normal(*shape)

    def run() -> Tensor:
        out = model(x)
        return (out if isinstance(out, Tensor) else out[0]).sum()

    site = next(s for s in discover(trace(model, run)).offers if s.name == "0")
    attach(model, awake(site, Recipe.of("lora")))
    assert mergeable(model) == []


def test_a_layer_that_was_cut_or_is_seen_by_a_hook_first_keeps_its_graft() -> None:
    x = normal(3, 5)
    for spoil in (lambda model: cut(model, "0"), None):
        model = nn.Sequential(nn.Linear(5, 4), nn.ReLU()).double()
        if spoil is None:
            model[0].register_forward_hook(lambda *_: None)
        attach(model, awake(site_at(model, x), Recipe.of("lora")))
        if spoil is not None:
            spoil(model)
        assert mergeable(model) == []


def test_what_follows_a_graft_that_reads_the_sum_stays() -> None:
    model, x = nn.Sequential(nn.Linear(5, 4), nn.ReLU()).double(), normal(3, 5)
    for name in ("0", "0+", "0"):
        attach(model, awake(site_at(model, x, name), Recipe.of("lora")))
    before = model(x)
    assert mergeable(model) == [("0", 0)]
    merge(model, [("0", 0)])
    torch.testing.assert_close(model(x), before)


def test_a_body_that_pads_what_it_has_cropped_stays() -> None:
    model, x = nn.Sequential(nn.Conv1d(2, 3, 5, padding=1), nn.ReLU()).double(), normal(4, 2, 9)
    site = site_at(model, x)
    grafted(
        model, site, nn.Sequential(nn.ConstantPad1d((-1, -1), 0.0), nn.Conv1d(2, 3, 3, padding=1)).double()
    )
    assert mergeable(model) == []


def test_a_low_rank_recipe_fits_every_kind_with_positive_rank_and_odd_kernel_only() -> None:
    site = Site("a", source=Port("image", (2, 8, 8)), target=Port("image", (3, 8, 8)))
    assert fits(Recipe.of("lora"), site) is None
    for wrong in ({"rank": 0}, {"kernel": 2}, {"kernel": 0}):
        with pytest.raises(ValueError, match="odd"):
            build(Recipe.of("lora", **wrong), site, seed=0)
