"""Units leave a block: the function is that of the model whose reader did not hear them, and nothing else moves."""

from __future__ import annotations

import copy

import msgspec
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from esper.recipe import Recipe
from esper.surgery.block import Block
from esper.surgery.graft import Graft, attach, cut
from esper.surgery.isolation import isolated
from esper.surgery.narrow import narrow
from esper.surgery.shrinking import Removal, shrink, shrinkable, together, without
from esper.surgery.site import Port, Site
from esper.surgery.widening import widen, widenable
from surgery.block_hosts import CASES, Case

some = settings(max_examples=25, deadline=None)
ALL = [pytest.param(case, id=case.name) for case in CASES]
BLOCKS = {case.name: tuple(site.block for site in case.sites() if site.block) for case in CASES}


def moved(case: Case) -> nn.Module:
    """A network whose buffers and values are not those of birth."""
    model = case.make().double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
        for seed in range(3):
            model.train()(case.batch(seed).double())
    return model


def outputs(case: Case, model: nn.Module, *, training: bool = False) -> Tensor:
    with isolated(model), torch.no_grad():
        torch.default_generator.manual_seed(0)
        return model.train(training)(case.batch(5).double())


@st.composite
def removals(draw: st.DrawFn) -> tuple[Case, Block, Tensor]:
    case = draw(st.sampled_from(CASES))
    block = draw(st.sampled_from(BLOCKS[case.name]))
    parts = together(block)
    chosen = draw(st.sets(st.integers(0, len(parts) - 1), max_size=len(parts) - 1))
    return case, block, parts[sorted(chosen)].flatten()


@some
@given(removals(), st.booleans())
def test_a_smaller_block_computes_what_the_larger_one_did_without_these_units(
    removal: tuple[Case, Block, Tensor], training: bool
) -> None:
    case, block, units = removal
    model = moved(case)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    plain = outputs(case, model, training=training)
    with without(model, [Removal(block, units)]):
        wanted = outputs(case, model, training=training)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert torch.equal(outputs(case, model, training=training), plain)
    names, types = list(model.state_dict()), [type(m) for m in model.modules()]
    shrink(model, block, units.tolist())
    if not _has_dropout(model) or not training:
        torch.testing.assert_close(outputs(case, model, training=training), wanted)
    assert (list(model.state_dict()), [type(m) for m in model.modules()]) == (names, types)


def _has_dropout(model: nn.Module) -> bool:
    return any(isinstance(module, nn.Dropout) for module in model.modules())


@some
@given(removals())
def test_a_smaller_model_is_that_of_the_same_class_with_smaller_sizes(
    removal: tuple[Case, Block, Tensor],
) -> None:
    case, block, units = removal
    model, params = moved(case), sum(p.numel() for p in case.make().parameters())
    changes = shrink(model, block, units.tolist())
    gone = sum(change.old.numel() - change.new.numel() for change in changes)
    assert sum(p.numel() for p in model.parameters()) == params - gone
    assert all(change.new is not change.old for change in changes)
    for module in model.modules():
        fresh = copy.deepcopy(module)
        if isinstance(
            module, (nn.Linear, nn.Conv1d, nn.Conv2d, nn.BatchNorm1d, nn.BatchNorm2d, nn.GroupNorm)
        ):
            fresh.reset_parameters()
            shapes = {name: tuple(value.shape) for name, value in fresh.state_dict().items()}
            assert shapes == {name: tuple(value.shape) for name, value in module.state_dict().items()}
            assert repr(fresh) == repr(module)


@pytest.mark.parametrize("case", ALL)
def test_units_that_nothing_reads_go_without_a_change(case: Case) -> None:
    for block in BLOCKS[case.name]:
        model = moved(case)
        units = together(block)[::2][: len(together(block)) - 1].flatten()
        with without(model, [Removal(block, units)]):
            dead = copy.deepcopy(model)
        before = [outputs(case, dead, training=False)]
        shrink(dead, block, units.tolist())
        torch.testing.assert_close([outputs(case, dead, training=False)], before)


@pytest.mark.parametrize("case", ALL)
def test_widening_by_units_and_pruning_them_again_gives_the_function_back(case: Case) -> None:
    for site in case.sites():
        block = site.block
        assert block is not None
        model = moved(case)
        before = outputs(case, model)
        body = narrow(block, 2 * block.multiple).double()
        attach(model, Graft(body, site, Recipe.of("widen")))
        widen(model, widenable(model))
        wider = _wider(block, 2 * block.multiple)
        own = block.width // block.groups
        parts = together(wider)
        added = [part for part in parts if int(part[0]) % (wider.width // wider.groups) >= own]
        assert not torch.allclose(outputs(case, model), before)
        shrink(model, wider, torch.stack(added).flatten().tolist())
        torch.testing.assert_close(outputs(case, model), before)


def _wider(block: Block, added: int) -> Block:
    return msgspec.structs.replace(block, width=block.width + added)


@pytest.mark.parametrize("case", ALL)
def test_a_graft_inside_a_block_or_a_cut_keeps_its_units(case: Case) -> None:
    for block in BLOCKS[case.name]:
        model = case.make()
        assert shrinkable(model, block)
        port = Port("vector", (block.width,))
        site = Site(block.producers[0], port, port, attachment="after")
        attach(model, Graft(nn.Identity(), site, Recipe.of("own")))
        assert not shrinkable(model, block)


def test_a_block_whose_reader_was_cut_keeps_its_units() -> None:
    case = CASES[0]
    model, block = case.make(), BLOCKS["perceptron"][0]
    site = case.sites()[0]
    attach(model, Graft(nn.Linear(6, 7), site, Recipe.of("own")))
    assert shrinkable(model, block)
    cut(model, block.consumer)
    assert not shrinkable(model, block)


def test_gradients_and_state_of_an_optimizer_are_sliced_alike() -> None:
    case, block = CASES[0], BLOCKS["perceptron"][0]
    model = moved(case)
    model(case.batch(0).double()).sum().backward()
    weight = model[0].weight
    kept = [0, 2, 3, 4, 6, 7]
    changes = {id(change.old): change for change in shrink(model, block, [1, 5])}
    change = changes[id(weight)]
    assert torch.equal(model[0].weight.grad, weight.grad[kept])
    assert torch.equal(change.of(weight.detach()), weight[kept])
    row, column = weight.detach().mean(1, keepdim=True), weight.detach().mean(0, keepdim=True)
    assert torch.equal(change.of(row), row[kept])
    assert torch.equal(change.of(column), column)
    assert change.of(torch.tensor(3.0)) == 3.0
