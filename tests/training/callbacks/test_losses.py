"""Losses of single examples are those that the model itself gives, by whichever way is proved to be right."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from esper.errors import EvaluateError
from esper.training.callbacks.losses import Losses, examples_of

N, L, C = 6, 5, 4
IGNORED = -100


class Counting(nn.Module):
    """A linear model that counts its calls."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(3, C)
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.linear(x)


def labels(*shape: int) -> Tensor:
    return torch.randint(C, shape, generator=torch.Generator().manual_seed(1))


def inputs(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(2))


def partly_ignored() -> Tensor:
    found = labels(N, L)
    found[0, :3] = found[1, 2] = IGNORED
    return found


def flat(logits: Tensor, target: Tensor, **options: Any) -> Tensor:
    return F.cross_entropy(logits.flatten(0, 1), target.flatten(), **options)


def next_one(logits: Tensor, target: Tensor) -> Tensor:
    return flat(logits[:, :-1], target[:, 1:])


def with_another(logits: Tensor, target: Tensor) -> Tensor:
    F.mse_loss(logits, torch.zeros_like(logits))
    return nn.CrossEntropyLoss()(logits, target)


CLASSES = inputs(N, 3), labels(N)
ONE_PASS: dict[str, tuple[Any, Tensor, Tensor]] = {
    "classes": (F.cross_entropy, *CLASSES),
    "smoothed": (lambda logits, target: F.cross_entropy(logits, target, label_smoothing=0.1), *CLASSES),
    "positional": (lambda logits, target: F.cross_entropy(logits, target, None, None, -7), *CLASSES),
    "after_another": (with_another, *CLASSES),
    "tokens": (flat, inputs(N, L, 3), partly_ignored()),
    "next_tokens": (next_one, inputs(N, L, 3), partly_ignored()),
    "images": (
        lambda logits, y: F.cross_entropy(logits.movedim(-1, 1), y),
        inputs(N, L, 3),
        partly_ignored(),
    ),
    "numbers": (F.mse_loss, inputs(N, 3), inputs(N, C)),
    "likelihood": (lambda logits, target: F.nll_loss(logits.log_softmax(-1), target), *CLASSES),
    "yes_or_no": (F.binary_cross_entropy_with_logits, inputs(N, 3), (inputs(N, C) > 0).float()),
}
ONE_BY_ONE: dict[str, Any] = {
    "scaled": lambda logits, target: 1.001 * F.cross_entropy(logits, target),
    "of_their_own": lambda logits, target: -logits.log_softmax(-1)[torch.arange(len(target)), target].mean(),
    "weighted": lambda logits, target: F.cross_entropy(
        logits, target, weight=torch.tensor([1.0, 2.0, 3.0, 1.0])
    ),
    "of_several": lambda logits, target: F.cross_entropy(logits, target) + F.mse_loss(logits, logits * 0),
}


def loss_of(loss: Any) -> Any:
    return lambda model, batch: loss(model(batch["x"]), batch["labels"])


def wanted(loss: Any, model: nn.Module, x: Tensor, target: Tensor) -> Tensor:
    return torch.stack([loss(model(x[i : i + 1]), target[i : i + 1]) for i in range(N)])


@pytest.mark.parametrize("kind", ONE_PASS)
def test_losses_of_torch_take_one_pass_a_batch_once_they_are_proved(kind: str) -> None:
    loss, x, target = ONE_PASS[kind]
    model = Counting()
    losses = Losses(loss_of(loss))
    expected = wanted(loss, model, x, target)
    torch.testing.assert_close(losses(model, {"x": x, "labels": target}), expected)
    model.calls = 0
    found = losses(model, {"x": x, "labels": target})
    assert model.calls == 1
    assert found.requires_grad
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("kind", ONE_BY_ONE)
def test_any_other_loss_is_taken_example_by_example_and_told(kind: str) -> None:
    loss, (x, target) = ONE_BY_ONE[kind], CLASSES
    model = Counting()
    losses = Losses(loss_of(loss))
    expected = wanted(loss, model, x, target)
    with pytest.warns(UserWarning, match="one example at a time"):
        first = losses(model, {"x": x, "labels": target})
    model.calls = 0
    again = losses(model, {"x": x, "labels": target})
    assert model.calls == N
    torch.testing.assert_close(first, expected)
    torch.testing.assert_close(again, expected)


def test_examples_that_do_not_lie_one_after_the_other_are_not_mixed_up() -> None:
    x, target = inputs(L, N, 3), labels(L, N)

    def time_first(model: nn.Module, batch: Any) -> Tensor:
        return flat(model(batch["x"].transpose(0, 1)), batch["labels"].transpose(0, 1))

    batch = {"x": x.transpose(0, 1), "labels": target.transpose(0, 1)}
    model = Counting()
    with pytest.warns(UserWarning, match="one example at a time"):
        found = Losses(time_first)(model, batch)
    torch.testing.assert_close(found, torch.stack([flat(model(x[:, [i]]), target[:, [i]]) for i in range(N)]))


def test_low_precision_is_no_reason_to_take_examples_one_by_one() -> None:
    loss, x, target = ONE_PASS["classes"]
    model = Counting()
    losses = Losses(loss_of(loss))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses(model, {"x": x, "labels": target})
        model.calls = 0
        losses(model, {"x": x, "labels": target})
    assert model.calls == 1


def test_examples_are_cut_out_of_nested_batches_and_what_is_shared_stays_whole() -> None:
    shared, scale = torch.arange(3), torch.tensor(2.0)
    x = torch.arange(4.0).view(2, 2)
    found = list(examples_of({"scale": scale, "x": [x, (x + 1,)], "shared": shared, "name": "a"}))
    assert len(found) == 2
    assert torch.equal(found[1]["x"][0], x[1:])
    assert torch.equal(found[1]["x"][1][0], x[1:] + 1)
    assert found[1]["shared"] is shared
    assert found[1]["scale"] is scale
    assert found[1]["name"] == "a"


def test_a_batch_without_a_tensor_is_refused_with_advice() -> None:
    with pytest.raises(EvaluateError, match="per_example"):
        list(examples_of({"texts": ["a", "b"]}))
