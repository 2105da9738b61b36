"""The loop: what it writes, and that stopping and going on changes nothing."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from esper.errors import CheckpointError, DataError
from esper.events import Attached, Cut, Folded
from esper.growth import checkpoint
from esper.growth.budget import Budget
from esper.training.data import Data
from esper.training.ending import conclude, load_model
from esper.training.network import num_params
from esper.training.order import Order
from esper.training.progress import Progress
from esper.training.run import Measured, Record, RunFolder, Settings, new_record
from esper.training.task import Task
from esper.training.trainer import Pace, Trainer


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def xor_task(**changes: Any) -> Task:
    """Four clouds, two classes: a network without hidden units cannot tell them apart, one with dropout draws."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1_200, 2, generator=generator).sign() + 0.3 * torch.randn(1_200, 2, generator=generator)
    y = (x[:, 0] * x[:, 1] > 0).long()
    data = Data.of((x[:600], y[:600]), (x[600:1_000], y[600:1_000]), (x[1_000:], y[1_000:]))
    task = Task(
        model,
        data,
        F.cross_entropy,
        name="xor",
        batch_size=50,
        total_steps=1_500,
        budget=Budget(params_ratio=None, params=2_000),
    )
    return replace(task, **changes)


def model() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 4), nn.Dropout(0.1), nn.BatchNorm1d(4), nn.Linear(4, 2))


def record(task: Task) -> Record:
    return new_record(
        Settings(source="x"), task=task.name, versions={}, data_hash="", total_steps=task.total_steps,
        metric="accuracy", direction="higher",
    )  # fmt: skip


def trainer_in(folder: Path, task: Task, **options: Any) -> Trainer:
    run = RunFolder.create(folder, record(task))
    return Trainer(task, run, pace=Pace(evaluate=50, save=100), **options)


def lines(trainer: Trainer) -> list[Measured]:
    return trainer.run.read_metrics()


def stop_at(step: int, trainer: Trainer) -> None:
    assert not trainer.train(should_stop=lambda: trainer.step >= step)


def test_a_plain_run_measures_every_step_and_learns(tmp_path: Path) -> None:
    trainer = trainer_in(tmp_path, xor_task(total_steps=300, model=lambda: mlp(16)), growth=False)
    seen: list[Any] = []
    trainer.listen(seen.append)
    assert trainer.train()
    trainer.finish()
    found = lines(trainer)
    assert [line.step for line in found] == list(range(301))
    assert [line.step for line in found if line.held_out_loss is not None] == list(range(0, 301, 50))
    assert found[-1].held_out_metric is not None
    assert found[-1].held_out_metric > 0.9
    assert [news.step for news in seen if isinstance(news, Progress)] == list(range(1, 301))


def mlp(width: int) -> nn.Module:
    return nn.Sequential(nn.Linear(2, width), nn.ReLU(), nn.Linear(width, 2))


@pytest.mark.parametrize("step", [1, 37, 100, 299])
def test_stopping_anywhere_and_going_on_gives_the_same_losses_to_the_bit(tmp_path: Path, step: int) -> None:
    task = xor_task(total_steps=300)
    whole = trainer_in(tmp_path / "whole", task, growth=False)
    whole.train()
    first = trainer_in(tmp_path / "parts", task, growth=False)
    stop_at(step, first)
    torch.rand(7)  # the world goes on
    second = Trainer(task, first.run, pace=first.pace, growth=False)
    second.restore()
    second.train()
    assert lines(second) == lines(whole)
    assert same_weights(second.finish(), whole.finish())


def killed() -> bool:
    raise KeyboardInterrupt


def test_a_run_that_was_killed_before_its_second_checkpoint_goes_on_as_an_unbroken_one(
    tmp_path: Path,
) -> None:
    task = xor_task(total_steps=20)
    whole = trainer_in(tmp_path / "whole", task, growth=False)
    whole.train()
    first = trainer_in(tmp_path / "parts", task, growth=False)
    with pytest.raises(KeyboardInterrupt):
        first.train(should_stop=killed)
    second = Trainer(task, first.run, pace=first.pace, growth=False)
    second.restore()
    second.train()
    assert lines(second) == lines(whole)


def test_a_slow_model_has_checkpoints_by_the_clock(tmp_path: Path) -> None:
    trainer = trainer_in(tmp_path, xor_task(total_steps=20), growth=False)
    trainer.pace = Pace(evaluate=50, seconds=0.0)
    with pytest.raises(KeyboardInterrupt):
        trainer.train(should_stop=lambda: trainer.step == 7 and killed())
    again = Trainer(trainer.task, trainer.run, growth=False)
    again.restore()
    assert again.step == 6


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Trainer:
    """A whole run in which something grew."""
    trainer = trainer_in(tmp_path_factory.mktemp("grown"), growing_task())
    trainer.train()
    events = trainer.run.read_events()
    assert any(isinstance(event, Attached) for event in events), (
        "the tests are worth nothing if nothing grows"
    )
    return trainer


def growing_task() -> Task:
    return xor_task(model=lambda: mlp(3), total_steps=900)


def test_a_growing_run_goes_on_from_the_middle_of_every_phase(tmp_path: Path, grown: Trainer) -> None:
    task = growing_task()
    trainer = trainer_in(tmp_path, task)
    for step in (5, 50, 120, 161, 200, 330, 396, 700):
        stop_at(step, trainer)
        trainer = Trainer(task, trainer.run, pace=trainer.pace)
        trainer.restore()
    trainer.train()
    assert lines(trainer) == lines(grown)
    assert same_weights(trainer.model, grown.model)
    assert trainer.run.read_events() == [e for e in grown.run.read_events() if not isinstance(e, Folded)]


def test_the_size_shown_is_that_of_the_engine_and_a_path_that_was_cut_does_not_count(tmp_path: Path) -> None:
    trainer = trainer_in(tmp_path, growing_task())
    shown: list[int] = []
    trainer.listen(lambda news: shown.append(news.params) if isinstance(news, Progress) else None)
    trainer.train()
    changes = [event for event in trainer.run.read_events() if isinstance(event, Attached | Cut)]
    assert any(isinstance(event, Cut) for event in changes), "the test is worth nothing if nothing is cut"
    for event in changes:
        assert shown[event.step - 1] == event.total_params
    assert shown[-1] == num_params(trainer.finish())


def test_a_run_that_has_only_begun_has_a_drawing_of_its_network(tmp_path: Path) -> None:
    trainer = trainer_in(tmp_path, xor_task(total_steps=300), growth=False)
    stop_at(1, trainer)
    drawn = trainer.run.load().network_before
    assert drawn is not None
    assert [layer.type for layer in drawn] == ["Linear", "Dropout", "BatchNorm1d", "Linear"]


class Restless(nn.Linear):
    """Draws from the random streams of Python and NumPy."""

    def forward(self, x: Tensor) -> Tensor:
        noise = random.random() + np.random.rand() if self.training else 0.0
        scores: Tensor = super().forward(x) + noise * x.sum(dim=1, keepdim=True)
        return scores


def test_going_on_continues_every_random_stream(tmp_path: Path) -> None:
    task = xor_task(total_steps=60, model=lambda: Restless(2, 2))
    whole = trainer_in(tmp_path / "whole", task, growth=False)
    whole.train()
    first = trainer_in(tmp_path / "parts", task, growth=False)
    stop_at(30, first)
    random.seed(99)
    np.random.seed(99)
    second = Trainer(task, first.run, pace=first.pace, growth=False)
    second.restore()
    second.train()
    assert lines(second) == lines(whole)


def test_a_grown_network_is_stored_and_comes_back_as_plain_torch(grown: Trainer) -> None:
    before = grown.task.evaluate(grown.model, grown.task.sets.held_out)
    result = conclude(grown).result
    assert result is not None
    assert result.params_end > result.params_start
    model = load_model(grown.run)
    assert grown.task.evaluate(model, grown.task.sets.held_out) == pytest.approx(before, rel=1e-4)
    assert not [module for module in grown.model.modules() if type(module).__module__.startswith("esper")]
    assert result.held_out > 0.95


def test_what_was_written_after_the_checkpoint_is_cut_off(tmp_path: Path) -> None:
    task = xor_task(total_steps=300)
    trainer = trainer_in(tmp_path, task, growth=False)
    stop_at(100, trainer)
    with trainer.run.metrics.open("ab") as file:
        file.write(b'{"step":101,"loss":1.5}\n{"step":102,"lo')
    again = Trainer(task, trainer.run, pace=trainer.pace, growth=False)
    again.restore()
    again.train()
    assert [line.step for line in lines(again)] == list(range(301))


def test_a_disk_that_fills_up_keeps_the_last_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = xor_task(total_steps=300)
    trainer = trainer_in(tmp_path, task, growth=False)

    def full(*_args: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(CheckpointError, match="No space left"):
        trainer.train(
            should_stop=lambda: trainer.step == 250 and bool(patch.setattr(os, "replace", full) or True)
        )
    again = Trainer(task, trainer.run, pace=trainer.pace, growth=False)
    again.restore()
    assert again.step == 200


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    trainer = trainer_in(tmp_path, xor_task(total_steps=100), growth=False)
    trainer.train()
    other = Trainer(xor_task(model=lambda: mlp(5)), trainer.run, growth=False)
    with pytest.raises(CheckpointError, match="does not fit"):
        other.restore()


def test_losses_that_stay_infinite_end_the_run_with_advice(tmp_path: Path) -> None:
    task = xor_task(make_optimizer=lambda parameters: torch.optim.SGD(parameters, lr=1e30))
    with pytest.raises(DataError, match="lower the learning rate"):
        trainer_in(tmp_path, task, growth=False).train()


def test_a_trainer_without_growth_does_what_a_plain_loop_does(tmp_path: Path) -> None:
    task = xor_task(total_steps=20, model=lambda: mlp(4))
    trainer = trainer_in(tmp_path, task, growth=False, seed=3)
    trainer.train()
    network = task.make_model(3)
    optimizer = task.make_optimizer(network.parameters())
    scheduler = task.make_scheduler(optimizer, 20)
    order = Order(600, 50, seed=3)
    losses = []
    for step in range(1, 21):
        rows = order.batch(step)
        optimizer.zero_grad()
        loss = F.cross_entropy(network(task.sets.train[0][rows]), task.sets.train[1][rows])
        loss.backward()
        optimizer.step()
        scheduler.step()
        losses.append(loss.item())
    assert [line.loss for line in lines(trainer)[1:]] == losses


def same_weights(left: nn.Module, right: nn.Module) -> bool:
    a, b = left.state_dict(), right.state_dict()
    return list(a) == list(b) and all(torch.equal(a[name], b[name]) for name in a)


def test_the_checkpoint_holds_no_test_rows(tmp_path: Path) -> None:
    trainer = trainer_in(tmp_path, xor_task(total_steps=10), growth=False)
    trainer.train()
    state = checkpoint.read(trainer.run.checkpoint)
    assert set(state) == {
        "step", "seconds", "loss", "random", "grower", "model", "optimizer", "scheduler", "journals",
    }  # fmt: skip
