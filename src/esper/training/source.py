"""From what stands behind ``esper train`` to a task: a built-in name, a Python file, or a table."""

from __future__ import annotations

import dataclasses
import difflib
from pathlib import Path

import msgspec
import torch

from esper.errors import DataError
from esper.training.builtin import CATALOGUE
from esper.training.csv_file import has_decimal_commas, read_csv
from esper.training.run import Settings
from esper.training.tables import table_task
from esper.training.task import Task
from esper.training.task_file import load_task


def make_task(settings: Settings) -> Task:
    """The task of ``settings``; the same one every time. Raises ``DataError`` when it cannot be made."""
    torch.manual_seed(settings.seed)
    task = _from_source(settings)
    if settings.total_steps is None:
        return task
    return dataclasses.replace(task, total_steps=settings.total_steps)


def _from_source(settings: Settings) -> Task:
    path = Path(settings.source)
    if settings.source in CATALOGUE:
        _refuse_target(settings)
        return CATALOGUE[settings.source].make(settings.seed)
    if path.suffix == ".py":
        _refuse_target(settings)
        task = load_task(path)
        return task if task.name != "task" else dataclasses.replace(task, name=path.stem)
    if path.suffix in {".csv", ".tsv", ".txt"} or path.is_file():
        return _from_table(path, settings)
    near = difflib.get_close_matches(settings.source, CATALOGUE, n=1)
    advice = f"did you mean {near[0]}? " if near else ""
    raise DataError(
        f"{settings.source!r} is no task, Python file or table; {advice}built-in tasks: {', '.join(CATALOGUE)}"
    )


def _from_table(path: Path, settings: Settings) -> Task:
    if not path.is_file():
        raise DataError(f"there is no file {path}")
    table = read_csv(path, encoding=settings.encoding)
    if settings.target is None:
        raise DataError(f"say which column to predict: --target NAME, one of: {', '.join(list(table)[:20])}")
    task = table_task(table, settings.target, name=path.stem, kind=settings.kind, seed=settings.seed)
    assert task.preparation is not None
    commas = has_decimal_commas(path, encoding=settings.encoding)
    return dataclasses.replace(
        task, preparation=msgspec.structs.replace(task.preparation, decimal_commas=commas)
    )


def _refuse_target(settings: Settings) -> None:
    if settings.target is not None or settings.kind is not None:
        raise DataError(f"--target and --kind are for tables; {settings.source} brings its own target")
