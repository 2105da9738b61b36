"""First-order saliency of units, against what the loss does when a unit is silenced."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from esper.signals.saliency import Saliency
from esper.surgery.block import Block
from esper.surgery.shrinking import silenced
from surgery.block_hosts import CASES, Case

FEEDFORWARD = [case for case in CASES if not any(word in case.name for word in ("lstm", "gru", "rnn"))]


def blocks(case: Case) -> list[Block]:
    return [site.block for site in case.sites() if site.block is not None]


def loss(model: nn.Module, x: Tensor) -> Tensor:
    return model.eval()(x).flatten(1).sum(1)


@pytest.mark.parametrize("case", FEEDFORWARD, ids=lambda case: case.name)
def test_it_is_how_much_the_loss_of_an_example_changes_where_it_is_linear_in_the_unit(case: Case) -> None:
    block = blocks(case)[-1]
    model, x = case.make().double(), case.batch(0, 1).double()
    saliency = Saliency(model, [block])
    with saliency.watching():
        whole = loss(model, x)
        whole.sum().backward()
    for unit in range(block.width):
        with silenced(model, {block: torch.tensor([unit])}):
            change = (loss(model, x) - whole).abs()
        torch.testing.assert_close(saliency.of[block][unit], change.sum())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_units_that_nothing_reads_have_none_and_others_add_up_over_passes(case: Case) -> None:
    model = case.make().double()
    found = {}
    with silenced(
        model, {block: torch.tensor([0, block.width - 1]) for block in blocks(case) if block.groups == 1}
    ):
        for passes in (1, 2):
            saliency = Saliency(model, blocks(case))
            with saliency.watching():
                for _ in range(passes):
                    loss(model, case.batch(1).double()).sum().backward()
            found[passes] = saliency.of
    for block in blocks(case):
        torch.testing.assert_close(found[2][block], 2 * found[1][block])
        assert (found[1][block][[0, -1]] == 0).all() == (block.groups == 1)
        assert (found[1][block] > 0).any()


def test_without_gradients_it_is_the_size_of_what_a_unit_says() -> None:
    case = CASES[0]
    model, block = case.make().double(), blocks(case)[-1]
    saliency, heard = Saliency(model, [block], with_gradients=False), []
    model[6].register_forward_pre_hook(lambda _, args: heard.append(args[0]))
    with saliency.watching(), torch.no_grad():
        model.eval()(case.batch(0).double())
    torch.testing.assert_close(saliency.of[block], heard[0].abs().sum(0))
    assert len(model[6]._forward_pre_hooks) == 1
