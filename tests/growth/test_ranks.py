"""Growth of a model that several processes train: they stay alike, equal one process, and stop together.

To start a process takes as long as to train in it, so each number of ranks is started once and does all its runs in
turn; the last run of each ends the job.
"""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from growth import ranks_worker
from growth.torchrun import torchrun

WORKER = Path(__file__).with_name("ranks_worker.py")
REASON = "ValueError: this rank has lost its disk"


@dataclass(frozen=True)
class Job:
    """What became of a job, and of its runs by name."""

    folder: Path
    done: subprocess.CompletedProcess[str]

    def outcome(self, name: str) -> dict[str, Any]:
        """What came out of a run that ended well."""
        written = self.folder / name / "outcome.json"
        assert written.exists(), self.done.stderr[-4000:]
        found: dict[str, Any] = json.loads(written.read_text())
        return found

    def unfinished(self) -> list[str]:
        """The runs that did not end well."""
        return [run.name for run in self.folder.iterdir() if not (run / "outcome.json").exists()]


def start(folder: Path, *, ranks: int, runs: dict[str, dict[str, Any]]) -> Job:
    """So many processes on this machine, started by torchrun; what each run is ordered, by its name."""
    for name in runs:
        (folder / name).mkdir()
    orders = [{"folder": str(folder / name), **order} for name, order in runs.items()]
    return Job(folder, torchrun(WORKER, json.dumps(orders), ranks=ranks))


@pytest.fixture(scope="module")
def alone() -> dict[str, Any]:
    """One process on the global batches."""
    return in_this_process()


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Job:
    """Two ranks; in the last run the second one raises."""
    runs: dict[str, dict[str, Any]] = {
        "replicas": {"save_at": 110},
        "shared": {"shared": True},
        "parts": {"accumulate": 2},
        "waits": {"unused": False},
        "shards": {"sharded": True},
        "raises": {"failing": 1, "failure": "raise", "fail_at": 40},
    }
    return start(tmp_path_factory.mktemp("two"), ranks=2, runs=runs)


@pytest.fixture(scope="module")
def three(two: Job, tmp_path_factory: pytest.TempPathFactory) -> Job:
    """Three ranks; they go on from the checkpoint of two, and in the last run the second one is killed."""
    runs: dict[str, dict[str, Any]] = {
        "replicas": {},
        "resumed": {"resume": str(two.folder / "replicas")},
        "killed": {"failing": 1, "failure": "kill", "save_at": 110, "fail_at": 111},
    }
    return start(tmp_path_factory.mktemp("three"), ranks=3, runs=runs)


def in_this_process(**orders: Any) -> dict[str, Any]:
    """What came out of a run without other ranks, as it is written."""
    found: dict[str, Any] = json.loads(json.dumps(ranks_worker.run(ranks_worker.Orders(folder="", **orders))))
    return found


def assert_alike(found: dict[str, Any], alone: dict[str, Any]) -> None:
    """The same decisions at the same steps; losses and outputs to what float32 sums in another order leave over."""
    assert alone["attached"]
    for decisions in ("attached", "refused", "record"):
        assert found[decisions] == alone[decisions]
    assert found["losses"] == pytest.approx(alone["losses"], rel=1e-4)
    assert found["test"] == pytest.approx(alone["test"], rel=1e-3, abs=1e-4)


def assert_goes_on(found: dict[str, Any], alone: dict[str, Any]) -> None:
    """As if it had never stopped at the checkpoint."""
    assert found["attached"] == alone["attached"]
    assert found["losses"] == pytest.approx(alone["losses"][110:], rel=1e-3)


def test_ranks_grow_as_one_process_does_on_the_same_global_batches(
    alone: dict[str, Any], two: Job, three: Job
) -> None:
    assert_alike(two.outcome("replicas"), alone)
    assert_alike(three.outcome("replicas"), alone)


def test_held_out_examples_that_all_ranks_share_are_counted_once(alone: dict[str, Any], two: Job) -> None:
    assert_alike(two.outcome("shared"), alone)


def test_gradients_of_a_live_graft_wait_for_the_last_of_several_passes(
    alone: dict[str, Any], two: Job
) -> None:
    candidates = [candidate for candidate, _ in two.outcome("parts")["attached"]]
    assert candidates == [candidate for candidate, _ in alone["attached"]]


def test_a_wrapper_that_waits_for_every_parameter_grows_alike(alone: dict[str, Any], two: Job) -> None:
    assert_alike(two.outcome("waits"), alone)


def test_shards_grow_as_one_process_does_and_are_folded_in_one(alone: dict[str, Any], two: Job) -> None:
    assert_alike(two.outcome("shards"), alone)


def test_a_rank_that_raises_stops_all_with_its_reason(two: Job) -> None:
    assert two.done.returncode != 0
    assert two.unfinished() == ["raises"]
    assert REASON in two.done.stderr
    assert f"rank 1 failed, so growth stops on all ranks: {REASON}" in two.done.stderr


def test_another_number_of_ranks_goes_on_from_a_checkpoint(alone: dict[str, Any], three: Job) -> None:
    assert_goes_on(three.outcome("resumed"), alone)


def test_a_killed_rank_stops_the_job_and_one_process_goes_on_from_its_checkpoint(
    alone: dict[str, Any], three: Job
) -> None:
    assert three.done.returncode != 0
    assert three.unfinished() == ["killed"]
    assert_goes_on(in_this_process(resume=str(three.folder / "killed")), alone)
