"""The command ``esper``, as a user meets it: outputs, exit codes, messages."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from esper import __version__
from esper.apps import cli

Esper = Callable[..., tuple[int, str, str]]

TASK = """
import os, signal, torch
from pathlib import Path
from torch.nn import functional as F
from esper.training.task import Task

x = torch.randn(400, 4, generator=torch.Generator().manual_seed(0))
y = (x[:, 0] * x[:, 1] > 0).long()
calls = 0

def loss(output, target, reduction="mean"):
    global calls
    calls += 1
    order = Path(__file__).with_suffix(".order")
    if order.exists() and calls == 560:
        name = order.read_text()
        order.unlink()
        os.kill(os.getpid(), signal.Signals[name])
    return F.cross_entropy(output, target, reduction=reduction)

def task():
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Dropout(0.1), torch.nn.Linear(8, 2))
    return Task(model, (x, y), loss, batch_size=20, total_steps=600)
"""


@pytest.fixture
def esper(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Esper:
    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["esper", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        code = caught.value.code
        assert code is None or isinstance(code, int)
        return (code or 0, *capsys.readouterr())

    return run


@pytest.fixture
def task_file(tmp_path: Path) -> Path:
    path = tmp_path / "noisy_xor.py"
    path.write_text(TASK)
    return path


def losses(home: Path, number: int = 0) -> list[Any]:
    by_age = sorted(
        (home / "runs").iterdir(), key=lambda path: json.loads((path / "run.json").read_text())["created"]
    )
    folder = by_age[number]
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [(line["step"], line["loss"]) for line in map(json.loads, lines)]


def test_help_teaches_by_example_and_does_not_load_torch() -> None:
    program = (
        "import sys; sys.argv = ['esper', '--help']\n"
        "from esper.apps.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "assert not {'torch', 'pandas', 'sklearn'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "esper train houses.csv --target price" in done.stdout


def test_a_run_from_beginning_to_end(esper: Esper, task_file: Path, home: Path, tmp_path: Path) -> None:
    code, out, err = esper("train", task_file, "--no-growth", "--seed", 3)
    assert code == 0
    assert "Test accuracy" in out
    assert "Growth was switched off." in out
    assert "step 600/600" in err
    (folder,) = (home / "runs").iterdir()
    assert {path.name for path in folder.iterdir()} >= {
        "run.json", "events.jsonl", "metrics.jsonl", "checkpoint", "model", "report.html",
    }  # fmt: skip
    _, listing, _ = esper("runs", "--json")
    assert json.loads(listing)[0]["status"] == "finished"
    assert folder.name in esper("runs")[1]
    _, shown, _ = esper("show", "--json")
    assert json.loads(shown)["settings"]["seed"] == 3
    assert "Test accuracy" in esper("show", folder.name[:-2])[1]
    code, out, _ = esper("export", "latest", "--format", "code", "-o", tmp_path / "out")
    assert out.split() == [
        "wrote",
        str(tmp_path / "out/noisy_xor.pt"),
        "wrote",
        str(tmp_path / "out/noisy_xor.py"),
    ]


def test_an_export_replaces_what_an_export_wrote_and_nothing_else(
    esper: Esper, task_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(task_file.parent)
    esper("train", task_file.name, "--no-growth", "-q", "--steps", 5)
    assert esper("export", "latest")[1] == "wrote exported/noisy_xor.pt\nwrote exported/noisy_xor.py\n"
    code, _, err = esper("export", "latest", "-o", ".")
    assert (code, "in the way: noisy_xor.py" in err, "--output FOLDER" in err) == (1, True, True)
    assert task_file.read_text() == TASK
    assert not task_file.with_suffix(".pt").exists()
    esper("train", task_file.name, "--no-growth", "-q", "--steps", 6)
    assert esper("export", "latest")[1].startswith("replaced exported/noisy_xor.pt\nreplaced")
    written = Path("exported/noisy_xor.py")
    written.write_text(written.read_text() + "# mine")
    assert esper("export", "latest")[0] == 1
    assert written.read_text().endswith("# mine")


def test_quiet_shows_only_the_verdict(esper: Esper, task_file: Path) -> None:
    _, out, err = esper("train", task_file, "--no-growth", "--quiet", "--steps", 5)
    assert err == ""
    assert out.startswith("Test accuracy")


def test_ctrl_c_saves_says_how_to_go_on_and_going_on_gives_the_same_losses(
    esper: Esper, task_file: Path, home: Path
) -> None:
    assert esper("train", task_file, "--no-growth", "-q")[0] == 0
    task_file.with_suffix(".order").write_text("SIGINT")
    code, out, _ = esper("train", task_file, "--no-growth", "-q")
    assert code == 130
    name = out.split()[-1]
    assert "go on with: esper train --resume" in out
    assert json.loads(esper("runs", "--json")[1])[0]["status"] == "interrupted"
    assert losses(home, 1) == losses(home, 0)[: len(losses(home, 1))]
    assert esper("train", "--resume", name, "-q")[0] == 0
    assert losses(home, 1) == losses(home, 0)


def test_a_run_that_was_killed_goes_on_with_the_same_losses(
    esper: Esper, task_file: Path, home: Path
) -> None:
    assert esper("train", task_file, "--no-growth", "-q")[0] == 0
    task_file.with_suffix(".order").write_text("SIGKILL")
    program = "import sys; from esper.apps.cli import main; main()"
    arguments = [sys.executable, "-c", program, "train", str(task_file), "--no-growth", "-q"]
    done = subprocess.run(arguments, env={**os.environ, "ESPER_HOME": str(home)}, capture_output=True)
    assert done.returncode == -signal.SIGKILL
    assert json.loads(esper("runs", "--json")[1])[0]["status"] == "interrupted"
    said = esper("show", "latest")[1].splitlines()[-1]
    assert said.startswith("The run was interrupted; ")
    assert esper(*said.partition("Go on with: esper ")[2].split(), "-q")[0] == 0
    assert losses(home, 1) == losses(home, 0)


def test_a_finished_run_is_not_resumed_and_an_unfinished_one_is_not_exported(
    esper: Esper, task_file: Path
) -> None:
    task_file.with_suffix(".order").write_text("SIGINT")
    esper("train", task_file, "--no-growth", "-q")
    code, _, err = esper("export", "latest")
    assert (code, "is not finished; go on with" in err) == (1, True)
    esper("train", "--resume", "latest", "-q")
    code, _, err = esper("train", "--resume", "latest")
    assert (code, "is finished; look at it with" in err) == (1, True)


def test_a_run_that_cannot_begin_has_failed(esper: Esper, task_file: Path) -> None:
    task_file.write_text(
        "import torch\nfrom esper.training.task import Task\n"
        "task = Task(torch.nn.Linear(3, 1), (torch.rand(99, 3), torch.rand(99)), torch.nn.functional.mse_loss)"
    )
    code, _, err = esper("train", task_file)
    assert (code, "y.unsqueeze(1)" in err) == (1, True)
    assert json.loads(esper("runs", "--json")[1])[0]["status"] == "failed"


def test_a_run_is_not_resumed_on_other_data(esper: Esper, task_file: Path) -> None:
    task_file.with_suffix(".order").write_text("SIGINT")
    esper("train", task_file, "--no-growth", "-q")
    task_file.write_text(task_file.read_text().replace("manual_seed(0)", "manual_seed(1)"))
    code, _, err = esper("train", "--resume", "latest")
    assert (code, "have changed since it began" in err) == (1, True)


ROWS = "\n".join(f"{i % 17},{'ab'[i % 2]},{(i * 7) % 10 + 3 * (i % 2)}.5" for i in range(120))


def test_a_table_is_trained_on_and_predicted_from(esper: Esper, tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text(f"x,kind,price\n{ROWS}\n")
    code, out, err = esper("train", tmp_path / "data.csv", "--target", "price", "--no-growth", "--steps", 20)
    assert code == 0
    assert "gradient-boosted" in out
    assert "'price' is taken for regression; --kind says otherwise" in err
    (tmp_path / "new.csv").write_text("id,kind,x\n007,a,3\n008,c,4\n")
    code, out, err = esper("predict", "latest", tmp_path / "new.csv")
    assert code == 0
    assert out.splitlines()[0] == "id,kind,x,price_predicted"
    assert out.splitlines()[1].startswith("007,a,3,")
    assert "taken as 'other': c" in err
    assert esper("predict", "latest", tmp_path / "new.csv", "-o", tmp_path / "out.csv")[1].startswith("wrote")
    assert (tmp_path / "out.csv").read_text() == out
    code, _, err = esper("predict", "latest", tmp_path / "new.csv", "-o", tmp_path / "none" / "out.csv")
    assert (code, "cannot write" in err) == (1, True)
    (tmp_path / "new.csv").write_text("kind\na\n")
    code, _, err = esper("predict", "latest", tmp_path / "new.csv")
    assert (code, "lacks columns that the network was trained on: x" in err) == (1, True)


def test_a_table_with_too_few_rows_to_judge_by_is_trained_without_growth_and_says_so(
    esper: Esper, tmp_path: Path
) -> None:
    (tmp_path / "data.csv").write_text(f"x,kind,price\n{ROWS}\n")
    code, out, err = esper("train", tmp_path / "data.csv", "--target", "price", "--steps", 20)
    assert code == 0
    reason = "12 held-out examples are too few to judge growth by; at least 30 are needed (a table of about 300 rows"
    assert f"growth is off: {reason}" in err
    assert f"Growth was off: {reason}" in out
    assert json.loads(esper("show", "--json")[1])["settings"]["growth"] is False


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "mnist"], "no task, Python file or table; did you mean mnist1d?"),
        (["train", "none.py"], "there is no file none.py"),
        (["train", "none.csv", "--target", "x"], "there is no file none.csv"),
        (["train", "digits", "--target", "x"], "--target and --kind are for tables"),
        (["show", "zebra"], "there are no runs"),
        (["predict", "latest", "none.csv"], "there are no runs"),
    ],
)
def test_an_error_is_one_line_and_a_code(esper: Esper, arguments: list[str], message: str) -> None:
    code, _, err = esper(*arguments)
    assert code == 1
    assert err.startswith("error: ")
    assert message in err
    assert len(err.splitlines()) == 1


def test_a_table_without_a_target_lists_its_columns(esper: Esper, tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text(f"x,kind,price\n{ROWS}\n")
    assert "--target NAME, one of: x, kind, price" in esper("train", tmp_path / "data.csv")[2]


def test_debug_shows_the_whole_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    from esper.errors import DataError

    monkeypatch.setattr(sys, "argv", ["esper", "train", "none.py", "--debug"])
    with pytest.raises(DataError):
        cli.main()


def test_an_error_that_nobody_foresaw_is_one_line_too(esper: Esper, tmp_path: Path) -> None:
    odd = "total_steps=600, make_optimizer=lambda parameters: 1 / 0"
    (tmp_path / "odd.py").write_text(TASK.replace("total_steps=600", odd))
    code, _, err = esper("train", tmp_path / "odd.py", "-q", "--no-growth")
    assert code == 1
    assert err == "error: unexpected ZeroDivisionError: division by zero (the whole story: --debug)\n"


def test_a_task_file_that_ends_the_process_is_an_error(esper: Esper, tmp_path: Path) -> None:
    (tmp_path / "odd.py").write_text("import sys\nsys.exit(0)")
    code, _, err = esper("train", tmp_path / "odd.py")
    assert (code, "odd.py, line 2: this ends the process" in err) == (1, True)
    (tmp_path / "odd.py").write_text(TASK.replace("calls += 1", "raise SystemExit(0)"))
    code, _, err = esper("train", tmp_path / "odd.py", "--no-growth", "-q")
    assert (code, "own code ended the process (sys.exit)" in err) == (1, True)


@pytest.mark.filterwarnings("always:take care")
def test_a_warning_is_one_line_without_a_place(esper: Esper, task_file: Path) -> None:
    task_file.write_text(f"import warnings\nwarnings.warn('take care\\n of this')\n{TASK}")
    _, _, err = esper("train", task_file, "--no-growth", "-q", "--steps", 5)
    assert err == "note: take care of this\n"


def test_nothing_or_two_things_to_train_is_a_usage_error(esper: Esper) -> None:
    assert esper("train")[0] == 2
    code, _, err = esper("train", "digits", "--resume", "latest", "--steps", 5, "-q")
    assert code == 2
    said = " ".join(err.replace("│", " ").split())
    assert "--resume goes on with the run's own task and settings; leave out" in said
    assert {"--steps,", "SOURCE"} <= set(said.split())


def test_the_version_is_printed(esper: Esper) -> None:
    assert esper("--version") == (0, f"esper {__version__}\n", "")


def test_an_unwritable_home_is_an_error_before_training(esper: Esper, task_file: Path, home: Path) -> None:
    (home / "runs").write_text("in the way")
    code, _, err = esper("train", task_file)
    assert (code, "set ESPER_HOME" in err) == (1, True)


def test_built_in_tasks_are_listed(esper: Esper) -> None:
    names = [row["name"] for row in json.loads(esper("tasks", "--json")[1])]
    assert names[:3] == ["mnist1d", "digits", "fashion"]
    assert "breast-cancer" in esper("tasks")[1]


def test_no_runs_yet_says_how_to_start_one(esper: Esper) -> None:
    assert "esper train mnist1d" in esper("runs")[1]
    assert json.loads(esper("runs", "--json")[1]) == []


def test_a_damaged_run_is_listed_and_showing_it_says_what_is_wrong(esper: Esper, home: Path) -> None:
    folder = home / "runs" / "2026-01-31-xor-4f01aa"
    folder.mkdir(parents=True)
    (folder / "run.json").write_text("{")
    assert "2026-01-31-xor-4f01aa  damaged" in esper("runs")[1]
    code, _, err = esper("show", "latest")
    assert (code, "run.json is damaged" in err) == (1, True)
