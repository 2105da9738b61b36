"""Three sets of examples: how they are cut, and that the test set is read once."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import Dataset, TensorDataset

from esper.errors import DataError, RunError
from esper.training.data import Data, as_rows
from esper.training.metric import ACCURACY, R2, RMSE
from esper.training.order import Order


@given(num_rows=st.integers(20, 300), seed=st.integers(0, 5))
def test_a_split_uses_every_row_in_exactly_one_set(num_rows: int, seed: int) -> None:
    rows = (torch.zeros(num_rows, 2), torch.arange(num_rows))
    data = Data.split(rows, seed=seed)
    parts = [data.train[-1], data.held_out[-1], data.test.open()[-1]]
    assert sorted(torch.cat(parts).tolist()) == list(range(num_rows))
    assert len(parts[2]) == round(0.2 * num_rows)


def test_the_test_set_opens_once() -> None:
    data = Data.split((torch.zeros(20, 1), torch.zeros(20)))
    data.test.open()
    with pytest.raises(RunError, match="read already"):
        data.test.open()


def test_a_hash_sees_every_set_and_every_bit_and_does_not_open_the_test_set() -> None:
    def data(value: float) -> Data:
        x = torch.zeros(4, 2)
        y = torch.zeros(4, dtype=torch.long)
        return Data.of((x, y), (x, y), (x + value, y))

    assert data(0.0).sha256() == data(0.0).sha256() != data(1e-30).sha256()
    one = data(0.0)
    one.sha256()
    one.test.open()


def test_a_dataset_is_read_into_rows() -> None:
    x, y = torch.randn(5, 3), torch.arange(5)
    rows = as_rows(TensorDataset(x, y))
    assert torch.equal(rows[0], x)
    assert torch.equal(rows[1], y)


class Endless(Dataset[Any]):
    """A dataset that does not know its length."""


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ((torch.zeros(3), torch.zeros(4)), r"equal length; these have \[3, 4\]"),
        ((torch.zeros(3),), "inputs and a target"),
        ("rows.csv", "must be tensors"),
        (TensorDataset(torch.zeros(0, 2), torch.zeros(0)), "is empty"),
        (Endless(), "has no length"),
    ],
)
def test_other_things_are_refused_with_a_reason(source: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        as_rows(source)


def test_an_empty_set_is_refused_by_name() -> None:
    with pytest.raises(DataError, match="held-out set is empty"):
        Data.split((torch.zeros(4, 1), torch.zeros(4)), held_out=0.0)


@given(num_rows=st.integers(1, 50), batch=st.integers(1, 20), seed=st.integers(0, 3))
def test_an_epoch_shows_no_row_twice_and_any_step_can_be_asked_for_alone(
    num_rows: int, batch: int, seed: int
) -> None:
    order = Order(num_rows, batch, seed=seed)
    epoch = torch.cat([order.batch(step) for step in range(1, order.steps_per_epoch + 1)])
    assert len(epoch.unique()) == len(epoch) == order.steps_per_epoch * order.batch_size
    step = 3 * order.steps_per_epoch + 1
    assert torch.equal(order.batch(step), Order(num_rows, batch, seed=seed).batch(step))


def test_seeds_and_epochs_have_orders_of_their_own() -> None:
    orders = [tuple(Order(100, 100, seed=seed).batch(step).tolist()) for seed in range(3) for step in (1, 2)]
    assert len(set(orders)) == 6


def test_metrics_are_what_their_names_say() -> None:
    logits, labels = torch.tensor([[2.0, 1.0], [0.0, 1.0], [3.0, 0.0]]), torch.tensor([0, 1, 1])
    assert ACCURACY.measure(logits, labels) == pytest.approx(2 / 3)
    outputs, targets = torch.tensor([1.0, 2.0, 5.0]), torch.tensor([1.0, 2.0, 3.0])
    assert RMSE.measure(outputs, targets) == pytest.approx((4 / 3) ** 0.5)
    assert R2.measure(outputs, targets) == pytest.approx(1 - 4 / 2)
    assert R2.measure(outputs, torch.ones(3)) == 0.0


def test_a_metric_of_other_shapes_is_refused() -> None:
    with pytest.raises(DataError, match=r"\(3, 1\).*\(3,\)"):
        RMSE.measure(torch.zeros(3, 1), torch.zeros(3))
