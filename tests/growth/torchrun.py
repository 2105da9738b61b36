"""Runs a script under torchrun, on this machine."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

LIMIT = 240  # seconds until a run that hangs counts as one


def torchrun(script: Path, order: str, *, ranks: int) -> subprocess.CompletedProcess[str]:
    """``script`` with one argument, in so many processes."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    return subprocess.run(
        [*command, str(script), order], capture_output=True, text=True, timeout=LIMIT, check=False
    )
