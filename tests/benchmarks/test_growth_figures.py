"""The scripts that hold growth against what else could be trained run in seconds. Their figures are not judged here."""

from __future__ import annotations

import importlib
import sys
from functools import partial
from pathlib import Path

import pytest
import torch

from benchmarks.arms import Plan
from benchmarks.data import Rows, spirals
from benchmarks.gromo_nets import grown_cnn
from benchmarks.networks import mlp, num_params, staged_cnn
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


def test_a_decreed_widening_ends_in_the_very_shape_of_the_static_net() -> None:
    case = Case(
        lambda _, seed: spirals(seed),
        partial(mlp, (2, 12, 12, 2)),
        partial(mlp, (2, 4, 4, 2)),
        2.0,
        Plan(300),
    )
    run = Run(case, spirals(0), case.plan, 0)
    trained, kept = grown(run, decreed=True, counted=True)
    assert shape(trained.model) == shape(case.static())
    assert len(kept) == 2
    assert trained.flops > 0


def test_gromo_grows_a_stage_twice_and_the_net_of_its_sizes_computes_the_same() -> None:
    generator = torch.Generator().manual_seed(0)
    rows = Rows(
        torch.randn(60, 1, 4, 4, generator=generator), torch.randint(0, 10, (60,), generator=generator)
    )
    peer = grown_cnn((2, 2), rows, Plan(20, batch=20), 0)
    assert peer.widths[0] > 2
    assert peer.widths[1] == 2
    twin = staged_cnn(peer.widths, side=4)
    assert num_params(twin) == num_params(peer.model)
    with torch.no_grad():
        for own, grown in zip(twin.parameters(), peer.model.parameters(), strict=True):
            own.copy_(grown)
    torch.testing.assert_close(twin.train()(rows.x), peer.model.train()(rows.x))
