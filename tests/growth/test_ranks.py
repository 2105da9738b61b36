"""Growth of a model that several processes train: they stay alike, equal one process, and stop together."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from growth.torchrun import torchrun

WORKER = Path(__file__).with_name("ranks_worker.py")


def start(folder: Path, *, ranks: int, **orders: Any) -> subprocess.CompletedProcess[str]:
    """A run by torchrun, on this machine."""
    folder.mkdir(exist_ok=True)
    return torchrun(WORKER, json.dumps({"folder": str(folder), **orders}), ranks=ranks)


def outcome(folder: Path, *, ranks: int, **orders: Any) -> dict[str, Any]:
    """What came out of a run that ended well."""
    done = start(folder, ranks=ranks, **orders)
    assert done.returncode == 0, done.stderr[-4000:]
    found: dict[str, Any] = json.loads((folder / "outcome.json").read_text())
    return found


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """One process on the global batches."""
    return outcome(tmp_path_factory.mktemp("alone"), ranks=1)


def assert_alike(found: dict[str, Any], alone: dict[str, Any]) -> None:
    """The same decisions at the same steps; losses and outputs to what float32 sums in another order leave over."""
    assert alone["attached"]
    for decisions in ("attached", "refused", "record"):
        assert found[decisions] == alone[decisions]
    assert found["losses"] == pytest.approx(alone["losses"], rel=1e-4)
    assert found["test"] == pytest.approx(alone["test"], rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_grow_as_one_process_does_on_the_same_global_batches(
    ranks: int, alone: dict[str, Any], tmp_path: Path
) -> None:
    assert_alike(outcome(tmp_path / "many", ranks=ranks), alone)


def test_held_out_examples_that_all_ranks_share_are_counted_once(
    alone: dict[str, Any], tmp_path: Path
) -> None:
    assert_alike(outcome(tmp_path / "shared", ranks=2, shared=True), alone)


def test_gradients_of_a_live_graft_wait_for_the_last_of_several_passes(
    alone: dict[str, Any], tmp_path: Path
) -> None:
    found = outcome(tmp_path / "parts", ranks=2, accumulate=2)
    assert [candidate for candidate, _ in found["attached"]] == [
        candidate for candidate, _ in alone["attached"]
    ]


def test_a_wrapper_that_waits_for_every_parameter_grows_alike(alone: dict[str, Any], tmp_path: Path) -> None:
    assert_alike(outcome(tmp_path / "waits", ranks=2, unused=False), alone)


def test_shards_grow_as_one_process_does_and_are_folded_in_one(alone: dict[str, Any], tmp_path: Path) -> None:
    found = outcome(tmp_path / "shards", ranks=2, sharded=True)
    assert found["attached"] == alone["attached"]
    assert found["losses"] == pytest.approx(alone["losses"], rel=1e-4)
    assert found["test"] == pytest.approx(alone["test"], rel=1e-3, abs=1e-4)


def test_a_rank_that_raises_stops_all_with_its_reason(tmp_path: Path) -> None:
    done = start(tmp_path / "fails", ranks=2, failing=1, failure="raise", fail_at=50)
    assert done.returncode != 0
    assert "ValueError: this rank has lost its disk" in done.stderr
    assert (
        "rank 1 failed, so growth stops on all ranks: ValueError: this rank has lost its disk" in done.stderr
    )


def test_a_killed_rank_stops_the_job_and_another_number_of_ranks_goes_on_from_the_checkpoint(
    alone: dict[str, Any], tmp_path: Path
) -> None:
    folder = tmp_path / "killed"
    done = start(folder, ranks=2, failing=1, failure="kill", save_at=140, fail_at=141)
    assert done.returncode != 0
    assert not (folder / "outcome.json").exists()
    for ranks in (3, 1):
        found = outcome(folder, ranks=ranks, resume=True)
        assert found["attached"] == alone["attached"]
        assert found["losses"] == pytest.approx(alone["losses"][140:], rel=1e-3)
