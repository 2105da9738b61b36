"""The command under a published table: names of folders, not where they lie. Knows no script."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path


def command_of(script: str, folder: Path, models: Sequence[Path]) -> str:
    """What to type to make the table of ``folder`` again."""
    given = [word for model in models for word in ("--model", model.name)]
    return shlex.join(["python", "-m", f"benchmarks.memory.{script}", folder.name, *given])
