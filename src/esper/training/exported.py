"""Which files exports of a project have written: those may be replaced, any other is its owner's.

A file is known by its bytes: one that was changed after it was written is no longer an export.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from pathlib import Path

import msgspec

from esper.errors import DataError
from esper.training.journal import Journal, read_lines
from esper.training.run import RunFolder

FILE = "exports.jsonl"


class Exported(msgspec.Struct, frozen=True):
    """One file that an export was to write, as it was then."""

    path: str
    sha256: str


def put(run: RunFolder, made: Sequence[Path], folder: Path) -> dict[Path, bool]:
    """Move the files ``made`` from ``run`` into ``folder``; where each is now, and whether it replaced an earlier
    export.

    Raises ``DataError`` before anything is moved when another file is in the way, and when the disk refuses.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        targets = {path: folder / path.name for path in made}
        replaced = {target: target.exists() for target in targets.values()}
        _refuse_strangers(run, [target for target, is_there in replaced.items() if is_there])
        for path, target in targets.items():
            _note(run, Exported(str(target.absolute()), _sha256(path)))
            shutil.move(path, target)
    except OSError as error:
        raise DataError(f"cannot write into {folder}: {error.strerror}") from error
    return replaced


def _refuse_strangers(run: RunFolder, files: Sequence[Path]) -> None:
    known = {
        export.sha256 for path in run.path.parent.glob(f"*/{FILE}") for export in read_lines(path, Exported)
    }
    strangers = [str(file) for file in files if file.is_dir() or _sha256(file) not in known]
    if strangers:
        raise DataError(
            f"in the way: {', '.join(strangers)}, no export of this project, or changed since; nothing was written. "
            f"Move it away, or name another folder: esper export {run.name} --output FOLDER"
        )


def _note(run: RunFolder, export: Exported) -> None:
    path = run.path / FILE
    with Journal(path, size=path.stat().st_size if path.exists() else 0) as journal:
        journal.append(export)


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
