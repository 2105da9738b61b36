"""Per-example held-out losses: the same examples in the same order at every call, differentiable."""

from __future__ import annotations

import random
from collections import namedtuple
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from esper import held_out
from esper.errors import EvaluateError
from esper.growth.batch import move
from esper.surgery.isolation import isolated


def rows(num: int = 10) -> TensorDataset:
    generator = torch.Generator().manual_seed(0)
    return TensorDataset(torch.randn(num, 3, generator=generator), torch.arange(num) % 2)


def classifier() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return nn.Linear(3, 2)


@pytest.mark.parametrize(
    "loss", [F.cross_entropy, nn.CrossEntropyLoss(), nn.CrossEntropyLoss(reduction="sum")]
)
def test_losses_are_those_of_each_example_in_the_loaders_order(loss: Any) -> None:
    model, data = classifier(), rows()
    losses = held_out(DataLoader(data, batch_size=4), loss)(model)
    expected = F.cross_entropy(model(data.tensors[0]), data.tensors[1], reduction="none")
    torch.testing.assert_close(losses, expected)
    assert losses.requires_grad


def test_a_loss_module_is_copied_and_the_users_own_stays_as_it_is() -> None:
    loss = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 3.0]), label_smoothing=0.1)
    losses = held_out(DataLoader(rows(), batch_size=10), loss)(classifier())
    assert loss.reduction == "mean"
    assert losses.shape == (10,)


def test_dimensions_beyond_the_batch_are_averaged() -> None:
    x, y = torch.randn(6, 4, 3), torch.randn(6, 4, 3)
    losses = held_out([(x[:4], y[:4]), (x[4:], y[4:])], F.mse_loss)(nn.Identity())
    torch.testing.assert_close(losses, (x - y).square().mean((1, 2)))


def test_a_shuffling_and_augmenting_loader_is_read_once() -> None:
    class Augmented(torch.utils.data.Dataset[Any]):
        def __len__(self) -> int:
            return 12

        def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
            return torch.randn(3) + random.random(), torch.tensor(index % 2)

    evaluate, model = (
        held_out(DataLoader(Augmented(), batch_size=5, shuffle=True), F.cross_entropy),
        classifier(),
    )
    assert torch.equal(evaluate(model), evaluate(model))


def test_a_generator_can_be_given_in_place_of_a_loader() -> None:
    evaluate = held_out(
        (batch for batch in [(torch.ones(4, 3), torch.zeros(4, dtype=torch.long))]), F.cross_entropy
    )
    assert evaluate(classifier()).shape == evaluate(classifier()).shape == (4,)


def test_reading_a_loader_isolated_does_not_move_its_own_generator() -> None:
    generator = torch.Generator().manual_seed(5)
    before = generator.get_state()
    evaluate = held_out(DataLoader(rows(), batch_size=4, shuffle=True, generator=generator), F.cross_entropy)
    model = classifier()
    with isolated(model):
        evaluate(model)
    assert torch.equal(generator.get_state(), before)


def test_several_inputs_come_before_the_target() -> None:
    class Sum(nn.Module):
        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return a + b

    a, b = torch.ones(4, 2), torch.ones(4, 2)
    assert held_out([(a, b, torch.zeros(4, 2))], F.mse_loss)(Sum()).tolist() == [4.0] * 4


def test_anything_else_is_written_by_the_user() -> None:
    batch = {"x": torch.ones(4, 3), "y": torch.zeros(4)}
    evaluate = held_out([batch, batch], per_example=lambda model, b: (model(b["x"])[:, 0] - b["y"]).square())
    assert evaluate(classifier()).shape == (8,)


def test_losses_come_batch_by_batch_too() -> None:
    evaluate, model = held_out(DataLoader(rows(), batch_size=4), F.cross_entropy), classifier()
    parts = list(evaluate.batches(model))
    assert [len(part) for part in parts] == [4, 4, 2]
    assert torch.equal(torch.cat(parts), evaluate(model))


class NoReduction(nn.Module):
    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        return (output - target).square().mean()


class Tuples(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, x


def _blunt(output: Tensor, target: Tensor, reduction: str) -> Tensor:
    return F.mse_loss(output, target, reduction="mean" if reduction == "none" else reduction)


BATCH = (torch.ones(4, 3), torch.ones(4, 3))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: held_out([BATCH]), "one of the two"),
        (lambda: held_out([BATCH], F.mse_loss, per_example=lambda *_: torch.ones(4)), "one of the two"),
        (
            lambda: held_out([BATCH], NoReduction()),
            r"NoReduction has no 'reduction': give per_example=lambda model, ",
        ),
        (lambda: held_out([BATCH], lambda a, b: (a - b).mean()), "takes no 'reduction'"),
        (lambda: held_out([], F.mse_loss)(nn.Identity()), "held-out loader is empty: hold some rows"),
        (
            lambda: held_out([torch.ones(4)], F.mse_loss)(nn.Identity()),
            r"is not \(inputs, targets\): give per_",
        ),
        (lambda: held_out([BATCH], F.mse_loss)(Tuples()), "returns tuple, not a tensor"),
        (
            lambda: held_out([BATCH], _blunt)(nn.Identity()),
            "must keep the batch dim",
        ),
        (
            lambda: held_out([BATCH], per_example=lambda *_: torch.ones(()))(nn.Identity()),
            r"shape \(\); one loss per",
        ),
        (
            lambda: held_out([BATCH], per_example=lambda *_: torch.ones(4, 2))(nn.Identity()),
            r"shape \(4, 2\)",
        ),
    ],
)
def test_what_gives_no_loss_per_example_is_refused_with_advice(make: Any, words: str) -> None:
    with pytest.raises(EvaluateError, match=words):
        make()


def test_nested_batches_move_whole() -> None:
    pair = namedtuple("Pair", "x y")
    batch = {"a": [torch.ones(1)], "b": (torch.ones(1), "text"), "c": pair(torch.ones(1), 2)}
    moved = move(batch, torch.device("meta"))
    assert moved["a"][0].device.type == moved["b"][0].device.type == moved["c"].x.device.type == "meta"
    assert moved["b"][1] == "text"
    assert moved["c"].y == 2
