"""Writes LoCoMo and tau-bench in BEIR's layout, for ``benchmarks.memory.retrieval``. Does not download them."""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.memory import locomo, tau
from benchmarks.memory.beir import write_part

OUT = Path("~/.cache/esper-benchmarks/memory").expanduser()


def convert(data: Path, out: Path) -> list[Path]:
    """Convert what lies in ``data``; returns the folders that were written."""
    written = []
    if (data / locomo.NAME).exists():
        for part in locomo.parts_of(data / locomo.NAME):
            write_part(part, out / "locomo" / part.name)
        written.append(out / "locomo")
    if (data / tau.NAME).exists():
        for name, part in tau.parts_of(data / tau.NAME).items():
            write_part(part, out / name)
            written.append(out / name)
    return written


def main() -> None:
    """``python -m benchmarks.memory.convert --data FOLDER``."""
    parser = argparse.ArgumentParser("python -m benchmarks.memory.convert", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help=f"holds {locomo.NAME} or {tau.NAME}")
    parser.add_argument("--out", type=Path, default=OUT, help="where the sets are written (%(default)s)")
    given = parser.parse_args()
    written = convert(given.data, given.out)
    print("\n".join(map(str, written)) or f"neither {locomo.NAME} nor {tau.NAME} is in {given.data}")


if __name__ == "__main__":
    main()
