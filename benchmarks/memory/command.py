"""What scripts over sets share: their options, and the command under a table (names of folders, not where they lie)."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path

from esper.memory.recall.embeddings import Embedder
from esper.memory.recall.onnx_model import OnnxModel
from esper.memory.recall.static_table import StaticTable


def parser_of(script: str, description: str | None) -> argparse.ArgumentParser:
    """A folder of sets, models, and whether to publish."""
    parser = argparse.ArgumentParser(f"python -m benchmarks.memory.{script}", description=description)
    parser.add_argument("folder", type=Path, help="a set in BEIR's layout, or a folder of such sets")
    parser.add_argument("--model", type=Path, action="append", default=[], help="folder of an ONNX model")
    parser.add_argument("--publish", action="store_true", help="store the table in results/ and the README")
    return parser


def embedders_of(models: Sequence[Path]) -> list[Embedder]:
    """The static table, and the models in their folders."""
    return [StaticTable.installed(), *map(OnnxModel, models)]


def command_of(script: str, folder: Path, models: Sequence[Path]) -> str:
    """What to type to make the table of ``folder`` again."""
    given = [word for model in models for word in ("--model", model.name)]
    return shlex.join(["python", "-m", f"benchmarks.memory.{script}", folder.name, *given])
