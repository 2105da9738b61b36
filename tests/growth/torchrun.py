"""Runs a script under torchrun, on this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parents[1]
LIMIT = 240  # seconds until a run that hangs counts as one


def torchrun(script: Path, order: str, *, ranks: int) -> subprocess.CompletedProcess[str]:
    """``script`` with one argument, in so many processes; it may import what tests import."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    paths = os.pathsep.join(filter(None, [str(TESTS), os.environ.get("PYTHONPATH")]))
    return subprocess.run(
        [*command, str(script), order],
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
        env=os.environ | {"PYTHONPATH": paths},
    )


def seen_by_two(script: Path, folder: Path) -> list[Any]:
    """What each of two ranks that run ``script`` wrote into ``folder``."""
    done = torchrun(script, str(folder), ranks=2)
    assert done.returncode == 0, done.stderr[-4000:]
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1)]


def flat(numbers: Any) -> list[float]:
    """All numbers of nested lists."""
    if isinstance(numbers, list):
        return [number for part in numbers for number in flat(part)]
    return [numbers]
