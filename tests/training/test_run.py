"""Run folders: what is written, how runs are found, who holds them."""

from __future__ import annotations

import math
import os
import signal
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from esper.errors import RunError
from esper.events import Attached, Cut, Ended, Judged, Refused, RolledBack
from esper.training.journal import Journal, read_lines
from esper.training.run import (
    Measured,
    Record,
    Result,
    RunFolder,
    Settings,
    find_run,
    new_record,
    runs,
    summary,
)
from esper.training.verdict import told, verdict


def record(**fields: Any) -> Record:
    defaults: dict[str, Any] = {
        "task": "xor", "versions": {}, "data_hash": "", "total_steps": 10, "metric": "accuracy", "direction": "higher",
    }  # fmt: skip
    return replace(new_record(Settings(source="xor"), **defaults), **fields)


RESULT = Result(
    metric="accuracy", test=0.88, held_out=0.86, test_loss=0.4, params_start=100, params_end=300,
    macs_start=90, macs_end=280, seconds=12.0, baselines={"linear": 0.5, "gradient-boosted": 0.9},
)  # fmt: skip


def test_a_run_is_found_by_latest_by_the_start_of_its_name_by_its_id_and_by_its_path(tmp_path: Path) -> None:
    first, second = (RunFolder.create(tmp_path, record(created=f"2026-01-0{day}T00")) for day in (1, 2))
    assert find_run(tmp_path, "latest").path == second.path
    assert find_run(tmp_path, first.name[:-1]).path == first.path
    assert find_run(tmp_path, first.load().id).path == first.path
    assert find_run(tmp_path / "elsewhere", str(first.path)).path == first.path
    assert [run.name for run in runs(tmp_path)] == [second.name, first.name]


def test_the_start_of_an_id_is_enough_and_a_whole_id_wins_over_the_start_of_a_name(tmp_path: Path) -> None:
    first, second = (RunFolder.create(tmp_path, record(id=name)) for name in ("4f01aa", "2026"))
    assert find_run(tmp_path, "4f0").path == first.path
    assert find_run(tmp_path, "2026").path == second.path


def test_a_name_that_fits_none_or_several_says_which_there_are(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"there are no runs .* esper train mnist1d"):
        find_run(tmp_path, "latest")
    names = [RunFolder.create(tmp_path, record()).name for _ in range(2)]
    with pytest.raises(RunError, match="2 runs fit '20'; say one of: "):
        find_run(tmp_path, "20")
    with pytest.raises(RunError, match="no runs fit 'zebra'"):
        find_run(tmp_path, "zebra")
    assert len(set(names)) == 2


def test_a_folder_that_cannot_be_written_is_an_error_at_once(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file where the folder should be")
    with pytest.raises(RunError, match="ESPER_HOME"):
        RunFolder.create(tmp_path, record())


def test_a_damaged_run_is_named_and_listed_as_damaged(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path, record())
    whole = summary(run)
    (run.path / "run.json").write_text("{")
    with pytest.raises(RunError, match=r"run\.json is damaged"):
        run.load()
    assert [summary(found)["status"] for found in runs(tmp_path)] == ["damaged"]
    assert summary(run).keys() == whole.keys()
    with pytest.raises(RunError, match=r"run\.json is damaged"):
        find_run(tmp_path, "latest").load()
    later = RunFolder.create(tmp_path, record())
    assert find_run(tmp_path, "latest").path == later.path
    with pytest.raises(RunError, match="is not a run"):
        RunFolder(tmp_path).load()


def test_a_run_belongs_to_one_process_and_is_free_when_that_is_killed(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path, record())
    run.unlock()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        run.lock()
        os.write(writer, b".")
        signal.pause()
    os.read(reader, 1)
    assert run.status() == "running"
    with pytest.raises(RunError, match="another process"):
        RunFolder(run.path).lock()
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(reader)
    os.close(writer)
    assert run.status() == "interrupted"
    run.lock()
    run.unlock()


def test_a_journal_is_cut_back_and_a_torn_last_line_is_no_line(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with Journal(path) as journal:
        journal.append(Measured(step=1, loss=0.5))
        size = journal.flush()
        journal.append(Measured(step=2, loss=math.nan))
    assert list(read_lines(path, Measured)) == [Measured(step=1, loss=0.5), Measured(step=2, loss=None)]
    with Journal(path, size=size) as journal:
        journal.append(Measured(step=2, loss=0.25))
    with path.open("ab") as file:
        file.write(b'{"step":3,"lo')
    assert [line.loss for line in read_lines(path, Measured)] == [0.5, 0.25]
    path.write_bytes(b"{]\n")
    with pytest.raises(RunError, match="line 1 is damaged"):
        list(read_lines(path, Measured))


def test_a_journal_that_cannot_be_opened_says_why(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="cannot write"):
        Journal(tmp_path / "none" / "metrics.jsonl")


JUDGED = Judged(
    step=9, candidate="l1 conv1d(channels=25)", kind="graft", num_examples=500, gain=0.21, standard_error=0.02,
    lower=0.1, alpha=0.01, price=0.04, detectable=math.nan, host_loss=1.2, accepted=True, reason="",
)  # fmt: skip
GREW = Attached(
    step=9, candidate="l1 conv1d(channels=25)", path="l1.grafts.0", params=200, macs=190,
    total_params=300, total_macs=280,
)  # fmt: skip
EVENTS = [
    JUDGED,
    GREW,
    Cut(step=10, site="l1", params=40, total_params=260, total_macs=240),
    Refused(step=11, candidate="l2 mlp", reason="no gain"),
    Refused(step=12, candidate="l3 mlp", reason="no gain"),
    Refused(step=12, candidate="l2 mlp", reason="no gain"),
    RolledBack(step=13, to_step=12, path="l1.grafts.0", reason="the loss exploded"),
    Ended(step=14, reason="three refusals in a row"),
]


def test_events_come_back_also_with_numbers_that_json_lacks(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path, record())
    with Journal(run.events) as journal:
        for event in EVENTS:
            journal.append(event)
    judged, *others = run.read_events()
    assert others == EVENTS[1:]
    assert isinstance(judged, Judged)
    assert math.isnan(judged.detectable)


def test_the_verdict_says_what_grew_what_it_bought_and_what_was_refused() -> None:
    text = "\n".join(verdict(record(result=RESULT), EVENTS))
    for part in (
        "Test accuracy 88.0 % (held out 86.0 %)",
        "from 100 to 300 parameters",
        "Step 9: conv1d(channels=25) grew at l1 (+200 parameters); it lowered the held-out loss by 0.21 ± 0.02 on 500",
        "Step 10: the own path of l1 was no longer needed and went.",
        "Step 13: put back to step 12: the loss exploded.",
        "Refused without a trace: 3.",
        "  l2 mlp: no gain (2 times)\n  l3 mlp: no gain",
        "Growth ended at step 14: three refusals in a row.",
        "best first: gradient-boosted 90.0 %, grown network 88.0 %, linear 50.0 %",
    ):
        assert part in text
    assert told(JUDGED) is None


def test_the_verdict_of_a_run_without_growth_or_without_an_end_says_so() -> None:
    plain = record(settings=Settings(source="xor", growth=False), direction="lower", result=RESULT)
    text = "\n".join(verdict(plain, []))
    assert "Growth was switched off." in text
    assert "best first: linear 50.0 %, network 88.0 %, gradient-boosted 90.0 %" in text
    unmoved = "\n".join(
        verdict(record(result=RESULT), [GREW, RolledBack(step=9, to_step=8, path="", reason="nan")])
    )
    assert "best first: gradient-boosted 90.0 %, network 88.0 %" in unmoved
    assert "Nothing grew" in "\n".join(verdict(record(result=RESULT), []))
    assert verdict(record(), []) == ["The run is running; there is no verdict yet."]
    failed = record(status="failed", id="4f01aa")
    assert verdict(failed, [])[0].startswith("The run has failed; ")
    assert verdict(failed, [])[0].endswith("esper train --resume 4f01aa")


def test_a_run_that_knows_only_its_loss_says_it_once() -> None:
    result = msgspec.structs.replace(RESULT, metric="loss", test=0.5, held_out=0.4, test_loss=0.5)
    assert verdict(record(result=result), [])[0] == "Test loss 0.5 (held out 0.4)."


def test_a_row_of_the_listing_has_what_is_known(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path, record())
    assert summary(run)["test"] is None
    run.change(result=RESULT, status="finished")
    assert summary(run)["test"] == 0.88
    assert summary(run)["status"] == "finished"
