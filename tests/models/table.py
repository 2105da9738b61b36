"""The table of ``docs/models.md``. Run this file to write it anew from what the tests give."""

from __future__ import annotations

import importlib
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from models.family import Family
    from models.proof import Proof

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "models.md"
HEAD = (
    "network", "whose code", "parameters", "can grow", "grown", "parameters then",
    "resumes", "folds", "reloads", "torch.export", "ONNX", "safetensors", "code",
)  # fmt: skip


def row(proof: Proof) -> str:
    """One line of the table."""
    family, grower = proof.family, proof.course.grower
    proved = (
        proof.resumes, proof.folds, proof.reloads, proof.exports, proof.onnx, proof.safetensors, proof.code,
    )  # fmt: skip
    cells = [
        family.name,
        family.origin,
        f"{grower.sites().params:,}",
        f"{grower.sites().growable_share:.1%}",
        ", ".join(f"`{event.candidate}`" for event in proof.attached),
        f"{grower.size.params:,}",
        *("yes" if well else "no" for well in proved),
    ]
    return _line(cells)


def rows_of_page() -> list[str]:
    """The lines of the committed table, its head left out."""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    return lines[lines.index(_line(HEAD)) + 2 :]


def families() -> Iterator[Family]:
    """Those of all test modules, in the order of the files."""
    from models.conformance import Conformance

    for path in sorted(HERE.glob("test_*.py")):
        for value in vars(importlib.import_module(f"models.{path.stem}")).values():
            if isinstance(value, type) and issubclass(value, Conformance) and value is not Conformance:
                yield value.family


def write() -> None:
    """Prove everything, and put the table at the end of the page in place of the one that is there."""
    from models.proof import Proof

    text = PAGE.read_text(encoding="utf-8").partition(_line(HEAD))[0]
    with tempfile.TemporaryDirectory() as folder:
        rows = [row(Proof(family, Path(folder) / str(number))) for number, family in enumerate(families())]
    table = [_line(HEAD), _line(["---"] * len(HEAD)), *rows]
    PAGE.write_text(text + "\n".join(table) + "\n", encoding="utf-8")


def _line(cells: list[str] | tuple[str, ...]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    os.environ["HF_HUB_OFFLINE"] = "1"
    sys.path.insert(0, str(HERE.parent))
    importlib.import_module("torch").set_num_threads(1)
    importlib.import_module("models.table").write()
