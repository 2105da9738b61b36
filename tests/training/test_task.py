"""What a task accepts, and task files of users."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from esper.errors import ConfigurationError, DataError
from esper.training.task import Task, constant_then_cosine
from esper.training.task_file import load_task

ROWS = (torch.randn(50, 3, generator=torch.Generator().manual_seed(0)), torch.arange(50) % 2)


def test_model_data_and_loss_are_enough() -> None:
    task = Task(nn.Linear(3, 2), ROWS, F.cross_entropy)
    loss, accuracy = task.evaluate(task.make_model(0), task.sets.held_out)
    assert loss > 0
    assert accuracy is not None
    assert 0 <= accuracy <= 1
    assert task.batch_loss(task.make_model(0), task.sets.train).dim() == 0


def test_a_module_is_copied_and_a_function_is_seeded_without_touching_the_global_stream() -> None:
    module = nn.Linear(3, 2)
    assert Task(module, ROWS, F.cross_entropy).make_model(0) is not module
    task = Task(lambda: nn.Linear(3, 2), ROWS, F.cross_entropy)
    before = torch.get_rng_state()
    first, again, other = task.make_model(1), task.make_model(1), task.make_model(2)
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(first.weight, again.weight)
    assert not torch.equal(first.weight, other.weight)


def test_an_evaluation_is_in_eval_mode_and_puts_frozen_layers_back() -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.Dropout(0.9), nn.BatchNorm1d(2).eval())
    task = Task(model, ROWS, F.cross_entropy)
    assert task.evaluate(model, task.sets.held_out) == task.evaluate(model, task.sets.held_out)
    assert [module.training for module in model] == [True, True, False]


def test_a_float_target_is_scored_by_its_mean_squared_error_and_a_free_loss_by_itself() -> None:
    rows = (ROWS[0], ROWS[0][:, :1])
    task = Task(lambda: nn.Linear(3, 1), rows, F.mse_loss)
    assert task.score is not None
    assert task.score.name == "rmse"

    def surprise(model: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
        outputs: Tensor = model(batch[0])
        return outputs.abs().mean(dim=1)

    free = Task(lambda: nn.Linear(3, 1), rows, per_example=surprise)
    loss, metric = free.evaluate(free.make_model(0), free.sets.held_out)
    assert metric is None
    assert loss == pytest.approx(free.batch_loss(free.make_model(0), free.sets.held_out).item())


def test_a_task_without_a_loss_or_with_nonsense_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="loss or per_example"):
        Task(nn.Linear(3, 2), ROWS)
    with pytest.raises(ConfigurationError, match="at least 1"):
        Task(nn.Linear(3, 2), ROWS, F.cross_entropy, total_steps=0)
    with pytest.raises(DataError, match="returned int"):
        Task(lambda: 3, ROWS, F.cross_entropy).make_model(0)  # type: ignore[arg-type, return-value]


def test_a_loss_without_reduction_is_refused_with_what_a_task_takes_instead() -> None:
    task = Task(nn.Linear(3, 2), ROWS, lambda output, target: F.cross_entropy(output, target))
    with pytest.raises(
        ConfigurationError, match=r"give per_example=lambda model, batch: \.\.\. in the place"
    ):
        task.evaluator(task.sets.held_out)


class Broken(nn.Module):
    def forward(self, _x: Tensor) -> Tensor:
        raise KeyError("nothing here")


@pytest.mark.parametrize(
    ("model", "y", "words"),
    [
        (
            nn.Linear(4, 2),
            ROWS[1],
            r"inputs \(2, 3\) float32, targets \(2,\) int64: RuntimeError: mat1 and mat2",
        ),
        (nn.Linear(3, 2), ROWS[0], "targets .* float32: RuntimeError"),
        (Broken(), ROWS[1], "KeyError: 'nothing here'$"),
    ],
)
def test_a_model_that_does_not_fit_its_data_is_told_with_their_shapes(
    model: nn.Module, y: Tensor, words: str
) -> None:
    task = Task(model, (ROWS[0], y), F.nll_loss, name="mine")
    with pytest.raises(DataError, match=f"model or loss of task mine cannot take .*{words}"):
        task.check_shapes(model)


def test_the_schedule_is_constant_for_half_the_steps_and_then_a_cosine() -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = constant_then_cosine(optimizer, 100)
    rates = []
    for _ in range(100):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates[:51] == [1.0] * 51
    assert rates[75] == pytest.approx(0.5)
    assert rates[99] == pytest.approx(0.0, abs=1e-2)


TASK = """
import torch
from esper.training.task import Task
{body}
"""


def write(folder: Path, body: str) -> Path:
    path = folder / "my_task.py"
    path.write_text(TASK.format(body=body))
    return path


DATA = "(torch.zeros(50, 3), torch.zeros(50).long())"
MAKES_TASK = f"Task(torch.nn.Linear(3, 2), {DATA}, torch.nn.functional.cross_entropy)"


@pytest.mark.parametrize("body", [f"task = {MAKES_TASK}", f"def task():\n    return {MAKES_TASK}"])
def test_a_task_file_has_a_task_or_a_function_that_makes_one(tmp_path: Path, body: str) -> None:
    assert load_task(write(tmp_path, body)).total_steps == 2_000


def test_a_task_file_may_import_its_neighbours(tmp_path: Path) -> None:
    (tmp_path / "my_neighbour.py").write_text("WIDTH = 3")
    task = load_task(write(tmp_path, f"import my_neighbour\ntask = {MAKES_TASK}"))
    assert isinstance(task, Task)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("x = 1 / 0", r"my_task\.py, line 4: ZeroDivisionError: division by zero"),
        (
            "def task():\n    return torch.zeros(2) @ torch.zeros(3)",
            r"my_task\.py, line 5: RuntimeError: .*size",
        ),
        ("def task(:", r"my_task\.py, line 4: "),
        ("import sys\nsys.exit(0)", r"my_task\.py, line 5: this ends the process"),
        ("def task():\n    raise SystemExit", r"my_task\.py, line 5: this ends the process"),
        ("x = 1", r"has no 'task'; it needs, for example: def task\(\)"),
        ("def task():\n    return 3", "a 'task' that is a int"),
    ],
)
def test_a_task_file_that_fails_is_reported_with_its_line(tmp_path: Path, body: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_task(write(tmp_path, body))


def test_a_missing_task_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no file"):
        load_task(tmp_path / "none.py")


@pytest.mark.parametrize("loss", [nn.functional.mse_loss, nn.functional.smooth_l1_loss, nn.MSELoss()])
def test_outputs_and_targets_that_would_be_paired_crosswise_are_an_error(loss: Any) -> None:
    x = torch.rand(40, 3)
    model = nn.Linear(3, 1)
    with pytest.raises(DataError, match=r"targets are \(2,\) .*y.unsqueeze\(1\)"):
        Task(model, (x, x[:, 0]), loss).check_shapes(model)
    Task(model, (x, x[:, :1]), loss).check_shapes(model)


def test_a_loss_that_minds_the_shapes_itself_may_have_any() -> None:
    def loss(output: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
        return nn.functional.mse_loss(output[:, 0], target, reduction=reduction)

    x = torch.rand(40, 3)
    model = nn.Linear(3, 1)
    Task(model, (x, x[:, 0]), loss).check_shapes(model)
