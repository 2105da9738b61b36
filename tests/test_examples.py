"""Every example runs, on fewer steps than it is written for."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))
LENGTHS = {"accelerate_loop.py": "2", "huggingface_trainer.py": "60", "lightning_module.py": "60"}


def test_every_example_has_a_length_to_be_run_with():
    assert sorted(LENGTHS) == [path.name for path in EXAMPLES]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_an_example_runs(path, tmp_path):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(path), LENGTHS[path.name]],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2_000:]
    assert "folded" in done.stdout
