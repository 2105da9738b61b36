"""What units repeat of each other, against least squares and against models in which some repeat others exactly."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from esper.signals.redundancy import Moments, elimination, shares
from esper.surgery.block import Block
from esper.surgery.shrinking import Removal, can_take_over, loudness, take_over, together, without
from surgery.block_hosts import CASES, Case

LEFT_ALONE = ("grouped", "lstm", "gru", "rnn")
SHARING = [case for case in CASES if not case.name.startswith(LEFT_ALONE)]


def block_of(case: Case) -> Block:
    return next(site.block for site in case.sites() if site.block is not None)


def surveyed(case: Case, model: nn.Module, block: Block, *, batches: int = 4) -> Moments:
    moments = Moments(model, [block])
    with moments.watching(), torch.no_grad():
        for seed in range(batches):
            model.eval()(case.batch(seed, 16).double())
    return moments


@pytest.mark.parametrize("case", SHARING, ids=lambda case: case.name)
def test_a_unit_that_repeats_another_goes_without_a_change(case: Case) -> None:
    model, block = case.make().double(), block_of(case)
    first, second = together(block)[:2]
    with torch.no_grad():
        for name in (*block.producers, *block.middle):
            for tensor in model.get_submodule(name).state_dict().values():
                if tensor.dim() and len(tensor) == block.width:
                    tensor[second] = tensor[first]
                elif tensor.dim() == 2 and tensor.shape[1] == block.width:
                    tensor[:, second] = tensor[:, first]
    x = case.batch(9).double()
    found = shares(surveyed(case, model, block).of(block), second, constant=False)
    with torch.no_grad():
        before = model.eval()(x)
        with without(model, [Removal(block, second)]):
            alone = (model(x) - before).norm()
        take_over(model, Removal(block, second, found))
        assert float((model(x) - before).norm()) <= 0.2 * float(alone) + 0.01 * float(before.norm())


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 9), st.integers(0, 1000), st.booleans())
def test_shares_are_those_of_ridge_regression(width: int, seed: int, constant: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(50, width, generator=generator, dtype=torch.float64) + 1.0
    whole = torch.cat([rows, torch.ones(50, 1)], 1)
    moments = whole.T @ whole / 50
    gone = torch.tensor([width // 2])
    own = whole[:, [i for i in range(width + constant) if i != width // 2]]
    ridge = 1e-2 * float(moments.diagonal()[:-1].mean())
    padded = torch.cat([own, (50 * ridge) ** 0.5 * torch.eye(own.shape[1])])
    wanted = torch.linalg.lstsq(padded, torch.cat([rows[:, gone], torch.zeros(own.shape[1], 1)])).solution
    found = shares(moments, gone, constant=constant)
    torch.testing.assert_close(found[: len(wanted)], wanted)
    assert constant or bool((found[-1] == 0).all())


def test_what_is_not_heard_or_says_nothing_is_struck_off_first_and_copies_before_what_is_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(200, 5, generator=generator, dtype=torch.float64)
    rows[:, 3] = rows[:, 2]
    rows[:, 1] = 0.0
    whole = torch.cat([rows, torch.ones(200, 1)], 1)
    loud = torch.tensor([0.0, 1.0, 1.0, 1.0, 5.0])
    order = elimination(whole.T @ whole / 200, loud, torch.arange(5)[:, None])
    assert [part for _, part in order] == [0, 1, 2, 3, 4]
    lost = [loss for loss, _ in order]
    assert lost[:2] == pytest.approx([0.0, 0.0], abs=1e-6)
    assert lost == sorted(lost)
    assert lost[2] < 0.2 < lost[3] < lost[4]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_loudness_is_the_norm_of_what_a_silenced_unit_takes_from_its_reader(case: Case) -> None:
    model, block = case.make().double(), block_of(case)
    weight = model.get_submodule(block.consumer).weight
    before = weight.detach().clone()
    for units in together(block):
        with without(model, [Removal(block, units)]):
            gone = float((before - weight.detach()).norm())
        assert float(loudness(model, block)[units].square().sum() ** 0.5) == pytest.approx(
            gone * len(units) ** 0.5 if block.groups > 1 and can_be_shared(model, block) else gone
        )


def can_be_shared(model: nn.Module, block: Block) -> bool:
    reader = model.get_submodule(block.consumer)
    return isinstance(reader, (nn.Conv1d, nn.Conv2d)) and reader.groups > 1


def test_units_of_groups_and_of_recurrent_layers_do_not_take_over() -> None:
    for case in CASES:
        expected = not case.name.startswith(("grouped", "lstm", "gru", "rnn"))
        assert can_take_over(case.make(), block_of(case)) is expected


def test_rows_that_are_not_finite_are_left_out() -> None:
    case = CASES[0]
    model, block = case.make().double(), block_of(case)
    moments = Moments(model, [block])

    def passed(x: Tensor) -> Tensor:
        with moments.watching(), torch.no_grad():
            model.eval()(x)
        return moments.of(block).clone()

    first = passed(case.batch(0).double())
    assert torch.equal(passed(case.batch(1).double() * torch.inf), first)


def test_striking_off_several_at_once_finds_what_is_not_heard_first_and_every_part_once() -> None:
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(600, 300, generator=generator, dtype=torch.float64)
    whole = torch.cat([rows, torch.ones(600, 1)], 1)
    loud = torch.ones(300)
    loud[::7] = 0.0
    order = elimination(whole.T @ whole / 600, loud, torch.arange(300)[:, None])
    assert {part for _, part in order[:43]} == set(range(0, 300, 7))
    assert sorted(part for _, part in order) == list(range(300))
    assert [loss for loss, _ in order] == sorted(loss for loss, _ in order)


def test_what_is_left_of_units_is_that_of_the_regression_on_those_that_stay() -> None:
    generator = torch.Generator().manual_seed(1)
    rows = torch.randn(400, 6, generator=generator, dtype=torch.float64) @ torch.randn(
        6, 6, generator=generator, dtype=torch.float64
    )
    whole = torch.cat([rows, torch.ones(400, 1)], 1)
    moments = whole.T @ whole / 400
    order = elimination(moments, torch.ones(6), torch.arange(6)[:, None])
    gone = [part for _, part in order[:3]]
    stay = [unit for unit in range(6) if unit not in gone] + [6]
    ridge = 1e-2 * float(moments.diagonal()[:-1].mean())
    last = gone[-1]
    own = moments[stay][:, stay] + ridge * torch.eye(len(stay)).double()
    explained = moments[last, stay] @ torch.linalg.solve(own, moments[stay, last])
    assert order[2][0] == pytest.approx(float(moments[last, last] - explained) ** 0.5)
