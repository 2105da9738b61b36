"""The scripts that hold growth against what else could be trained run in seconds. Their figures are not judged here."""

from __future__ import annotations

import importlib
import sys
from functools import partial
from pathlib import Path

import pytest

from benchmarks.arms import Plan
from benchmarks.data import spirals
from benchmarks.networks import mlp
from benchmarks.same_shape import Case, Run, grown, shape

SCRIPTS = ("same_shape", "chars", "peers")


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_quick_run_prints_its_table_and_stores_nothing(
    script: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    stored = sorted((path, path.read_bytes()) for path in Path("benchmarks").rglob("*.[jm][sd]*"))
    monkeypatch.setattr(sys, "argv", [script, "--quick", "--data", str(tmp_path)])
    importlib.import_module(f"benchmarks.{script}").main()
    assert "|" in capsys.readouterr().out
    assert stored == sorted((path, path.read_bytes()) for path in Path("benchmarks").rglob("*.[jm][sd]*"))


def test_a_net_widened_twice_ends_in_the_very_shape_of_the_static_net() -> None:
    case = Case(
        lambda _, seed: spirals(seed),
        partial(mlp, (2, 12, 12, 2)),
        partial(mlp, (2, 3, 3, 2)),
        ((0.1, 1.0), (0.5, 1.0)),
        Plan(300),
    )
    trained, kept = grown(Run(case, spirals(0), case.plan, 0), counted=True)
    assert shape(trained.model) == shape(case.static())
    assert len(kept) == 4
    assert trained.flops > 0
