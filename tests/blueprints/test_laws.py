"""Laws of every graft body, over random sites and recipes."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from hypothesis import given, settings
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from blueprints.random_sites import RECIPES, fitting
from esper.blueprints import DEFAULT_RECIPES, build, check_birth, cost, find, fits, names
from esper.blueprints.lengths import law, lengths_of, with_lengths
from esper.recipe import Recipe
from esper.surgery.site import Port, Site

Case = tuple[Recipe, Site]
some = settings(max_examples=60, deadline=None)


def awake(recipe: Recipe, site: Site) -> nn.Module:
    """A body whose last projection is no longer zero."""
    body = build(recipe, site, seed=1)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in body.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return body


def batch(port: Port, num_examples: int) -> torch.Tensor:
    return torch.randn(port.batched(num_examples), generator=torch.Generator().manual_seed(3))


@some
@given(fitting())
def test_every_recipe_is_silent_alive_and_tame_at_birth(case: Case) -> None:
    check_birth(*case)


@some
@given(fitting())
def test_cost_equals_the_built_module_and_a_flop_counter_on_the_cpu(case: Case) -> None:
    recipe, site = case
    body = build(recipe, site, seed=0)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        body(batch(site.source, 3))
    assert cost(recipe, site).params == sum(parameter.numel() for parameter in body.parameters())
    assert 3 * cost(recipe, site).macs == counter.get_total_flops() / 2


@some
@given(fitting())
def test_a_seed_decides_all_values_and_global_random_streams_stay(case: Case) -> None:
    state = torch.get_rng_state()
    first, second, other = (build(*case, seed=seed).state_dict() for seed in (5, 5, 6))
    cost(*case)
    check_birth(*case)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


@some
@given(fitting())
def test_examples_do_not_see_each_other(case: Case) -> None:
    recipe, site = case
    body, x = awake(recipe, site).double(), batch(site.source, 5).double()
    batch_dim = site.target.batch_dim
    few = body(x.narrow(site.source.batch_dim, 0, 2))
    torch.testing.assert_close(few, body(x).narrow(batch_dim, 0, 2))


@some
@given(fitting())
def test_other_lengths_give_the_lengths_of_the_law(case: Case) -> None:
    recipe, site = case
    source, target = site.source, site.target
    longer = tuple(length + 3 for length in lengths_of(source))
    if source.kind == target.kind:
        target = with_lengths(target, law(lengths_of(source), lengths_of(target)).lengths(longer))
    y = awake(recipe, site)(batch(with_lengths(source, longer), 2))
    assert tuple(y.shape) == target.batched(2)


@some
@given(fitting())
def test_no_class_of_ours_is_left_in_a_body(case: Case) -> None:
    assert not [type(m) for m in build(*case, seed=0).modules() if type(m).__module__.startswith("esper")]


@some
@given(fitting())
def test_copies_pickles_and_state_dicts_give_the_same_outputs(case: Case) -> None:
    recipe, site = case
    body, x = awake(recipe, site), batch(site.source, 2)
    loaded = build(recipe, site, seed=7)
    loaded.load_state_dict(body.state_dict())
    for twin in (loaded, copy.deepcopy(body), pickle.loads(pickle.dumps(body))):
        assert torch.equal(twin(x), body(x))


@some
@given(fitting())
def test_no_body_mixes_training_and_evaluation(case: Case) -> None:
    recipe, site = case
    body, x = awake(recipe, site), batch(site.source, 4)
    state = copy.deepcopy(body.state_dict())
    trained = body.train()(x)
    assert torch.equal(trained, body.eval()(x))
    assert all(torch.equal(state[name], value) for name, value in body.state_dict().items())


@pytest.mark.parametrize("batch_dim", [0, 1])
@pytest.mark.parametrize("recipe", DEFAULT_RECIPES, ids=str)
def test_no_default_body_over_a_sequence_reads_a_later_position(recipe: Recipe, batch_dim: int) -> None:
    site = Site("a", source=Port("sequence", (7, 8), batch_dim), target=Port("sequence", (7, 5), batch_dim))
    if fits(recipe, site):
        assert recipe.blueprint in ("conv2d", "separable2d", "dilated2d")
        return
    body, x = awake(recipe, site).double(), batch(site.source, 2).double()
    for end in range(1, 7):
        start = body(x.narrow(1 - batch_dim, 0, end))
        torch.testing.assert_close(start, body(x).narrow(1 - batch_dim, 0, end))


@pytest.mark.filterwarnings("ignore:The tensor attributes:UserWarning")  # torch's own, for nn.GRU
@pytest.mark.parametrize("recipe", RECIPES, ids=str)
def test_every_recipe_can_be_exported(recipe: Recipe) -> None:
    sites = {
        "vector": Site("a", source=Port("vector", (40,)), target=Port("vector", (32,))),
        "sequence": Site("a", source=Port("sequence", (6, 8), 1), target=Port("sequence", (6, 5), 1)),
        "image": Site("a", source=Port("image", (8, 7, 7)), target=Port("image", (5, 4, 4))),
    }
    for site in sites.values():
        if fits(recipe, site) is None:
            body, x = awake(recipe, site), batch(site.source, 2)
            program = torch.export.export(body, (x,), strict=False)
            torch.testing.assert_close(program.module()(x), body(x))


def test_every_blueprint_has_a_default_recipe() -> None:
    """Copies of the model's own layers have no random sites: they are tested on networks."""
    assert {recipe.blueprint for recipe in RECIPES} >= {name for name in names() if not find(name).of_block}
