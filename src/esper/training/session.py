"""Begins a run, or goes on with one: from settings to a trainer in a locked folder."""

from __future__ import annotations

import platform
import warnings
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import msgspec
import torch

from esper.controller.judge import Judge
from esper.errors import CheckpointError, MemoryStoreError, RunError
from esper.growth.run_memory import RunMemory
from esper.memory.memory import Memory
from esper.training.prediction import store_preparation
from esper.training.run import RunFolder, Settings, new_record
from esper.training.source import make_task
from esper.training.tables import ROWS_TO_GROW
from esper.training.task import Task
from esper.training.trainer import Trainer

NAMESPACE = "growth"
LIBRARIES = ("esper-grow", "torch", "numpy", "msgspec", "safetensors")


def begin(settings: Settings, home: Path) -> Trainer:
    """A trainer in a new run folder. Raises before anything is trained when task or folder cannot be had."""
    torch.set_num_threads(settings.threads)
    task = make_task(settings)
    reason = _why_not_grow(task) if settings.growth else None
    if reason is not None:
        settings = msgspec.structs.replace(settings, growth=False)
    record = new_record(
        settings,
        growth_off=reason,
        task=task.name,
        versions=versions(),
        data_hash=task.sets.sha256(),
        total_steps=task.total_steps,
        metric=task.score.name if task.score else "loss",
        direction=task.score.direction if task.score else "lower",
    )
    run = RunFolder.create(home, record)
    if task.preparation is not None:
        store_preparation(run, task.preparation)
    try:
        return _trainer(task, run, settings)
    except BaseException:
        run.change(status="failed")
        run.unlock()
        raise


def resume(run: RunFolder) -> Trainer:
    """A trainer that goes on where the last checkpoint of ``run`` stands.

    Raises ``RunError`` when the run is finished or being trained, ``CheckpointError`` when the data are not
    those that it began with.
    """
    record = run.load()
    if record.status == "finished":
        raise RunError(f"run {run.name} is finished; look at it with: esper show {run.name}")
    run.lock()
    torch.set_num_threads(record.settings.threads)
    task = make_task(record.settings)
    if task.sets.sha256() != record.data_hash:
        raise CheckpointError(f"the data of run {run.name} have changed since it began; start a new run")
    trainer = _trainer(task, run, record.settings)
    if run.has_checkpoint():
        trainer.restore()
    run.change(status="running")
    return trainer


def _why_not_grow(task: Task) -> str | None:
    """Nothing can be judged on a handful of rows; the network is trained all the same."""
    found, needed = task.sets.sizes["held-out"], Judge().min_examples
    if found >= needed:
        return None
    advice = f"a table of about {ROWS_TO_GROW} rows has them" if task.preparation else "hold out more"
    return (
        f"{found} held-out examples are too few to judge growth by; at least {needed} are needed ({advice})"
    )


def versions() -> dict[str, str]:
    """What the numbers of a run depend on."""
    found = {"python": platform.python_version(), "machine": platform.platform()}
    return {**found, **{library: _version(library) for library in LIBRARIES}}


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:  # Esper itself, run from its sources
        return "not installed"


def _trainer(task: Task, run: RunFolder, settings: Settings) -> Trainer:
    memory = _memory_of(task, run) if settings.memory and settings.growth else None
    return Trainer(task, run, seed=settings.seed, growth=settings.growth, memory=memory)


def _memory_of(task: Task, run: RunFolder) -> RunMemory | None:
    """The project's memory of growth; a run that begins goes without one that cannot be opened."""
    try:
        memory = Memory(namespace=NAMESPACE)
    except MemoryStoreError as error:
        if run.has_checkpoint():
            advice = "a run goes on with the memory that it began with; mend that, or start a new run"
            raise MemoryStoreError(f"{error} ({advice}, with --no-memory if it is to do without)") from error
        warnings.warn(f"the run goes on without its memory: {error}", stacklevel=2)
        return None
    return RunMemory(memory, run=run.name, trained=task.name, answers=run.advice)
