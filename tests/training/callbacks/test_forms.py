"""Losses of single examples are those that the model itself gives, by whichever way is proved to be right."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from esper.errors import EvaluateError
from esper.training.callbacks.examples import examples_of
from esper.training.callbacks.forms import IGNORED, Losses

N, L, C = 6, 5, 4


class Counting(nn.Module):
    """A linear model that counts its calls."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(3, C)
        self.calls = 0

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        self.calls += 1
        return {"logits": self.linear(x)}


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


KINDS: dict[str, tuple[Any, Tensor, Tensor]] = {
    "classes": (F.cross_entropy, inputs(N, 3), labels(N)),
    "tokens": (flat, inputs(N, L, 3), partly_ignored()),
    "next_tokens": (
        lambda logits, target: flat(logits[:, :-1], target[:, 1:]), inputs(N, L, 3), partly_ignored()
    ),
    "numbers": (F.mse_loss, inputs(N, 3), inputs(N, C)),
    "yes_or_no": (F.binary_cross_entropy_with_logits, inputs(N, 3), (inputs(N, C) > 0).float()),
}  # fmt: skip


def batch_loss(loss: Any) -> Any:
    def computed(model: nn.Module, batch: Any) -> tuple[Tensor, Any]:
        output = model(batch["x"])
        return loss(output["logits"], batch["labels"]), output

    return computed


def wanted(loss: Any, model: nn.Module, x: Tensor, target: Tensor) -> Tensor:
    return torch.stack([loss(model(x[i : i + 1])["logits"], target[i : i + 1]) for i in range(N)])


@pytest.mark.parametrize("kind", KINDS)
def test_usual_losses_take_one_pass_a_batch_once_they_are_proved(kind: str) -> None:
    loss, x, target = KINDS[kind]
    model = Counting()
    losses = Losses(batch_loss(loss))
    expected = wanted(loss, model, x, target)
    torch.testing.assert_close(losses(model, {"x": x, "labels": target}), expected)
    model.calls = 0
    found = losses(model, {"x": x, "labels": target})
    assert model.calls == 1
    assert found.requires_grad
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    "loss",
    [
        lambda logits, target: F.cross_entropy(logits, target, label_smoothing=0.01),
        lambda logits, target: F.cross_entropy(
            logits, target, weight=torch.tensor([1.0, 2.0, 1.0, 1.0]), reduction="sum"
        ),
        lambda logits, target: 1.001 * F.cross_entropy(logits, target),
    ],
    ids=["smoothed", "weighted", "scaled"],
)
def test_any_other_loss_is_taken_example_by_example_and_told(loss: Any) -> None:
    _, x, target = KINDS["classes"]
    model = Counting()
    losses = Losses(batch_loss(loss))
    expected = wanted(loss, model, x, target)
    with pytest.warns(UserWarning, match="one example at a time"):
        first = losses(model, {"x": x, "labels": target})
    model.calls = 0
    again = losses(model, {"x": x, "labels": target})
    assert model.calls == N
    torch.testing.assert_close(first, expected)
    torch.testing.assert_close(again, expected)


def test_examples_are_cut_out_of_nested_batches_and_what_is_shared_stays_whole() -> None:
    shared, scale = torch.arange(3), torch.tensor(2.0)
    x = torch.arange(4.0).view(2, 2)
    found = list(examples_of({"x": [x, (x + 1,)], "shared": shared, "scale": scale, "name": "a"}))
    assert len(found) == 2
    assert torch.equal(found[1]["x"][0], x[1:])
    assert torch.equal(found[1]["x"][1][0], x[1:] + 1)
    assert found[1]["shared"] is shared
    assert found[1]["scale"] is scale
    assert found[1]["name"] == "a"


def test_a_batch_without_a_tensor_is_refused_with_advice() -> None:
    with pytest.raises(EvaluateError, match="per_example"):
        list(examples_of({"texts": ["a", "b"]}))
