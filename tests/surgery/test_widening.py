"""Widening grafts become units of the model's own layers: the same function, classes, names and hooks."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from esper.blueprints import build, check_birth, cost
from esper.recipe import Recipe
from esper.surgery.graft import Graft, all_grafts, attach, cut, grafts_of
from esper.surgery.site import Port, Site
from esper.surgery.widening import unhampered, widen, widenable
from surgery.block_hosts import CASES, Case, perceptron

ALL = [pytest.param(case, id=case.name) for case in CASES]
WIDEN = Recipe.of("widen", ratio=0.5)


def graft(site: Site, *, seed: int = 0, recipe: Recipe = WIDEN) -> Graft:
    """As if trained: nothing is zero any more, and the running statistics have moved."""
    made = Graft(build(recipe, site, seed=seed), site, recipe)
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
        for buffer in made.buffers():
            if buffer.is_floating_point():
                buffer.add_(0.5 * torch.rand(buffer.shape, generator=generator))
    return made


def num_params(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def classes(model: nn.Module) -> list[tuple[str, type]]:
    return [(name, type(module)) for name, module in model.named_modules()]


@given(case=st.sampled_from(CASES), seeds=st.lists(st.integers(0, 9), min_size=1, max_size=4), data=st.data())
@settings(max_examples=40, deadline=None)
def test_joining_keeps_function_classes_and_names(case: Case, seeds: list[int], data: st.DataObject) -> None:
    """Several widenings of one block and of adjacent ones, in any order of attachment."""
    model = case.make().double()
    shape, names = classes(model), list(model.state_dict())
    for seed in seeds:
        attach(model, graft(data.draw(st.sampled_from(case.sites())), seed=seed))
    x = case.batch(7).double()
    before = outputs(model, x)
    places = widenable(model)
    assert len(places) == len(seeds)
    widen(model, places)
    torch.testing.assert_close(outputs(model, x), before, rtol=1e-11, atol=1e-12)
    assert not all_grafts(model)
    assert classes(model) == shape
    assert list(model.state_dict()) == names


def outputs(model: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return model.eval()(x)


@pytest.mark.parametrize("case", [case for case in ALL if case.id != "dropped"])
def test_in_training_mode_norms_see_the_same_statistics(case: Case) -> None:
    model = case.make().double()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    for site in case.sites():
        made = graft(site)
        for module in made.body.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        attach(model, made)
    twin = copy.deepcopy(model)
    x = case.batch(7).double()
    widen(model, widenable(model))
    torch.testing.assert_close(model.train()(x), twin.train()(x), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("case", ALL)
def test_one_widening_of_layers_that_do_not_meet_themselves_has_the_announced_size(case: Case) -> None:
    for site in case.sites():
        model = case.make()
        before = num_params(model)
        attach(model, graft(site))
        announced = before + cost(WIDEN, site).params
        assert num_params(model) == announced
        widen(model, widenable(model))
        meets_itself = any(layer.kind in ("LSTM", "GRU", "RNN") for layer in site.block.layers)  # type: ignore[union-attr]
        assert num_params(model) > announced if meets_itself else num_params(model) == announced


@pytest.mark.parametrize("case", ALL)
def test_a_fresh_widening_passes_the_check_at_birth(case: Case) -> None:
    for site in case.sites():
        check_birth(WIDEN, site)


def test_the_weights_load_into_a_network_built_by_hand_with_the_new_sizes() -> None:
    case = next(case for case in CASES if case.name == "perceptron")
    model = case.make()
    for site in case.sites():
        attach(model, graft(site))
    widen(model, widenable(model))
    by_hand = nn.Sequential(
        *(nn.Linear(6, 12), nn.BatchNorm1d(12), nn.ReLU()),
        *(nn.Linear(12, 11, bias=False), nn.Tanh(), nn.Dropout(0.1), nn.Linear(11, 3)),
    )
    by_hand.load_state_dict(model.state_dict())
    assert str(by_hand) == str(model)
    x = case.batch(3)
    torch.testing.assert_close(outputs(by_hand, x), outputs(model, x))


def first_pair(case: str = "perceptron") -> tuple[nn.Module, tuple[Site, ...]]:
    found = next(each for each in CASES if each.name == case)
    return found.make(), found.sites()


def beside(name: str, width: int, target: int) -> Site:
    return Site(name, source=Port("vector", (width,)), target=Port("vector", (target,)))


MLP = Recipe.of("mlp", hidden=4)


def test_another_graft_that_reads_the_units_stands_in_the_way() -> None:
    model, (first, second) = first_pair()
    attach(model, graft(first))
    attach(model, graft(second))
    attach(model, graft(beside("3", 8, 7), recipe=MLP))
    assert widenable(model) == []  # it reads what the first makes, and adds to what the second makes
    model, (first, second) = first_pair()
    attach(model, graft(first))
    attach(model, graft(beside("6", 7, 3), recipe=MLP))
    assert widenable(model) == [("3", 0)]


def test_a_widening_that_cannot_join_stands_in_the_way_of_its_neighbour() -> None:
    model, (first, second) = first_pair()
    attach(model, graft(first))
    attach(model, graft(second))
    attach(model, graft(beside("6", 7, 3), recipe=MLP))  # reads inside the second
    assert widenable(model) == []


def test_a_cut_stands_in_the_way() -> None:
    model, (_, second) = first_pair()
    attach(model, graft(second))
    cut(model, "6")
    assert widenable(model) == []


def frozen(model: nn.Module) -> None:
    model.get_parameter("6.weight").requires_grad_(False)


def tied(model: nn.Module) -> None:
    model.add_module("again", nn.Identity())
    model.again.weight = model.get_parameter("3.weight")


def parametrised(model: nn.Module) -> None:
    torch.nn.utils.parametrizations.weight_norm(model.get_submodule("6"))


def replaced(model: nn.Module) -> None:
    layer = model.get_submodule("3")
    vars(layer)["forward"] = layer.forward


@pytest.mark.parametrize("change", [frozen, tied, parametrised, replaced])
def test_weights_that_are_not_plain_trained_ones_stay_as_they_are(
    change: Callable[[nn.Module], None],
) -> None:
    model, (_, second) = first_pair()
    attach(model, graft(second))
    change(model)
    assert widenable(model) == []


def test_only_the_widening_recipe_joins() -> None:
    model, (_, second) = first_pair()
    attach(model, graft(second, recipe=Recipe.of("mlp", hidden=4)))
    assert widenable(model) == []


def test_hooks_and_marks_of_the_user_stay() -> None:
    model, (first, _) = first_pair()
    widths = []
    layer = model.get_submodule("0")
    layer.register_forward_hook(lambda *given: widths.append(given[-1].shape[1]))
    weight: Any = layer.weight
    weight.no_decay = True
    attach(model, graft(first))
    widen(model, widenable(model))
    outputs(model, torch.randn(4, 6))
    assert widths == [12]
    assert model.get_parameter("0.weight").no_decay  # type: ignore[attr-defined]


def test_gradients_that_wait_for_a_step_are_joined_too() -> None:
    model, sites = first_pair()
    for site in sites:
        attach(model, graft(site))
    x = torch.randn(8, 6)
    model.eval()(x).square().sum().backward()
    widen(model, widenable(model))
    waiting = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    own = [p for p in model.parameters() if p.grad is not None]
    assert len(own) == len(list(model.parameters()))
    model.zero_grad()
    model(x).square().sum().backward()
    for parameter, grad in zip(own, waiting, strict=True):
        assert parameter.grad is not None
        known = grad != 0  # where two widenings meet there was no weight to have one
        torch.testing.assert_close(parameter.grad[known], grad[known], rtol=1e-4, atol=1e-5)


def test_a_wider_module_keeps_its_grafts_elsewhere() -> None:
    model = perceptron()
    case = next(case for case in CASES if case.name == "perceptron")
    first, _ = case.sites()
    attach(model, graft(beside("6", 7, 3), recipe=MLP))
    attach(model, graft(first))
    x = torch.randn(4, 6)
    before = outputs(model, x)
    widen(model, widenable(model))
    assert len(grafts_of(model, "6")) == 1
    torch.testing.assert_close(outputs(model, x), before, rtol=1e-4, atol=1e-5)


def test_a_bound_block_is_nobody_else_s() -> None:
    """What would read or write inside is not offered any more, nor the block where something does so already."""
    case = next(case for case in CASES if case.name == "chunked")
    model, (site,) = case.make(), case.sites()
    port = Port("sequence", (5, 9))
    inside = Site("out", source=port, target=Port("sequence", (5, 6)))
    outside = Site("norm", source=Port("sequence", (5, 6)), target=Port("sequence", (5, 6)))
    after = Site("dense", source=port, target=port, attachment="after")
    everything = [site, inside, outside, after]
    assert unhampered(model, everything) == everything
    attach(model, graft(site))
    assert unhampered(model, everything) == [site, outside]
    other = case.make()
    attach(other, graft(inside, recipe=MLP))
    assert unhampered(other, everything) == [inside, outside, after]
