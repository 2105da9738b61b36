"""Runs a script under torchrun, on this machine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

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
