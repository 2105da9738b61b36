"""How a run begins: what is decided before the first step."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
import pytest

from esper.errors import MemoryStoreError
from esper.events import Spared
from esper.growth.episodes import TRIAL, Done, Entry
from esper.growth.run_memory import RunMemory
from esper.memory import Memory
from esper.memory.records import Outcome
from esper.training.run import Settings
from esper.training.session import NAMESPACE, begin, resume
from esper.training.tables import ROWS_TO_GROW
from esper.training.trainer import Pace, Trainer
from esper.training.verdict import spared as spared_words


@pytest.mark.parametrize(("num_rows", "grows"), [(ROWS_TO_GROW, True), (ROWS_TO_GROW - 2, False)])
def test_a_run_grows_from_as_many_rows_on_as_the_judge_needs(
    tmp_path: Path, num_rows: int, grows: bool
) -> None:
    table = tmp_path / "t.csv"
    table.write_text("x,z,price\n" + "".join(f"{i % 17},{i % 5},{i % 11}.5\n" for i in range(num_rows)))
    trainer = begin(Settings(source=str(table), target="price"), tmp_path)
    assert (trainer.grower is not None) == grows
    assert (trainer.run.load().growth_off is None) == grows
    assert trainer.run.load().settings.growth == grows
    trainer.run.unlock()


TASK = """
import torch
from torch import nn
import esper

def task():
    x = torch.randn(1_200, 2, generator=torch.Generator().manual_seed(0))
    return esper.Task(
        model=lambda: nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2)),
        data=(x, (x[:, 0] * x[:, 1] > 0).long()),
        loss=nn.functional.cross_entropy,
        total_steps=600,
    )
"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "xor.py").write_text(TASK)
    return Settings(source=str(tmp_path / "xor.py"))


def losses(trainer: Trainer) -> list[float | None]:
    return [line.loss for line in trainer.run.read_metrics()]


def spared(trainer: Trainer) -> list[str]:
    return [event.candidate for event in trainer.run.read_events() if isinstance(event, Spared)]


def remember_refusals(num: int = 240) -> None:
    """Of all kinds of situations, in the memory of the project."""
    with Memory(namespace=NAMESPACE) as memory:
        for number in range(num):
            context = {"kind": "vector to vector", "grafts": number % 2, "refused": number % 3, "r2": 0.1}
            run = RunMemory(memory, run="run 7")
            steps = (Done(TRIAL, "graft mlp"),)
            outcome = Outcome(ending="failure", verified=0.0)
            run.write(
                Entry(
                    key=str(number),
                    task="x",
                    task_type="graft",
                    context=context,
                    steps=steps,
                    outcome=outcome,
                )
            )


def finished(trainer: Trainer) -> Trainer:
    assert trainer.train()
    trainer.run.unlock()
    return trainer


def test_a_run_remembers_in_the_projects_memory_unless_it_is_told_not_to(
    tmp_path: Path, settings: Settings
) -> None:
    without = finished(begin(msgspec.structs.replace(settings, memory=False), tmp_path))
    with Memory(namespace=NAMESPACE) as memory:
        assert memory.episodes() == []
        first = finished(begin(settings, tmp_path))
        assert losses(first) == losses(without)
        assert {episode.tags for episode in memory.episodes()} == {(first.run.name,)}


def test_a_run_says_which_run_had_refused_what_it_skipped(tmp_path: Path, settings: Settings) -> None:
    remember_refusals()
    trainer = finished(begin(settings, tmp_path))
    skipped = spared(trainer)
    assert skipped
    told = " ".join(spared_words(trainer.run.read_events()))
    assert told.startswith(f"Skipped {len(skipped)} trial")
    assert "run 7 refused such trials" in told


def test_a_run_that_goes_on_reads_the_advice_that_it_has_read(tmp_path: Path, settings: Settings) -> None:
    remember_refusals()
    whole = finished(begin(settings, tmp_path))
    assert spared(whole)
    trainer = begin(settings, tmp_path)
    trainer.pace = Pace(evaluate=50, save=10_000)
    trainer.train(should_stop=lambda: bool(spared_so_far(trainer)))
    trainer.run.unlock()
    with Memory(namespace=NAMESPACE) as memory:
        memory.forget(namespace=NAMESPACE)
    shutil.rmtree(trainer.run.checkpoint)  # as if killed before the first checkpoint
    again = finished(resume(trainer.run))
    assert spared(again)[0] == spared(whole)[0]
    assert losses(again)[: trainer.step] == losses(whole)[: trainer.step]


def spared_so_far(trainer: Trainer) -> bool:
    assert trainer.grower is not None
    return any(isinstance(event, Spared) for event in trainer.grower.history)


def test_a_memory_that_cannot_be_opened_stops_no_run(
    tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "memory.db").write_bytes(b"this is no database, but it is long enough to be read as one" * 20)
    monkeypatch.setenv("ESPER_MEMORY_URL", str(tmp_path / "memory.db"))
    with pytest.warns(UserWarning, match="goes on without its memory"):
        trainer = begin(settings, tmp_path)
    assert trainer.grower is not None
    trainer.run.unlock()


def test_a_run_does_not_go_on_with_a_memory_that_cannot_be_opened_and_says_what_to_do(
    tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = begin(settings, tmp_path)
    trainer.train(should_stop=lambda: True)
    trainer.run.unlock()
    (tmp_path / "memory.db").write_bytes(b"this is no database, but it is long enough to be read as one" * 20)
    monkeypatch.setenv("ESPER_MEMORY_URL", str(tmp_path / "memory.db"))
    with pytest.raises(MemoryStoreError, match=r"mend that, or start a new run, with --no-memory"):
        resume(trainer.run)
    trainer.run.unlock()
