"""Writes the finished network of a run as files that need no Esper. The only file that knows ONNX."""

from __future__ import annotations

import logging
import re
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from keyword import iskeyword
from pathlib import Path

import msgspec
import torch

from esper.errors import RunError
from esper.growth import checkpoint
from esper.training import exported
from esper.training.code import write_code
from esper.training.data import Rows, take
from esper.training.ending import load_description, load_model
from esper.training.network import unfused
from esper.training.prediction import load_preparation, prepares_rows
from esper.training.preparation import Preparation
from esper.training.program import program_of
from esper.training.run import RunFolder
from esper.training.source import make_task

Writer = Callable[[torch.export.ExportedProgram, Path], None]
NUM_EXAMPLES = 2  # torch.export takes a batch of one for a constant


def export_run(run: RunFolder, to: str, folder: Path) -> dict[Path, bool]:
    """Write the network of ``run`` into ``folder`` as ``code``, ``safetensors``, ``export`` or ``onnx``.

    The files, and whether each replaced one of an earlier export: all begin with the task's name; for a table a
    ``.json`` says how rows become inputs, and outputs predictions.

    Raises ``RunError`` when the run is not finished or the network cannot be written so, ``DataError`` when a file
    that is no export is in the way, or the disk refuses.
    """
    preparation = load_preparation(run) if prepares_rows(run) else None
    with tempfile.TemporaryDirectory() as made:
        path = Path(made) / _file_name(run.load().task)
        match to:
            case "safetensors":
                _copy_weights(run, path)
            case "code":
                _write_code(run, path)
            case _:
                _WRITERS[to](program_of(load_model(run), _example(run)), path)
        if preparation is not None:
            path.with_suffix(".json").write_bytes(_as_json(preparation))
        return exported.put(run, sorted(Path(made).iterdir()), folder)


def _file_name(task: str) -> str:
    """A name that Python can import and that hides no other: ``my data`` becomes ``my_data``."""
    name = re.sub(r"\W", "_", task)
    taken = iskeyword(name) or name in {"json", "math", "torch"}
    return name if name.isidentifier() and not taken else f"network_{name}"


def _as_json(preparation: Preparation) -> bytes:
    return msgspec.json.format(msgspec.json.encode(preparation), indent=2) + b"\n"


def _copy_weights(run: RunFolder, path: Path) -> None:
    if run.load().status != "finished":
        raise RunError(f"run {run.name} is not finished; go on with: esper train --resume {run.name}")
    checkpoint.write_tensors(path.with_suffix(".safetensors"), checkpoint.read(run.model)["state"])


def _example(run: RunFolder) -> Rows:
    """Inputs of a small batch."""
    rows = take(make_task(run.load().settings).sets.held_out, slice(0, NUM_EXAMPLES))
    return tuple(part.clone() for part in rows[:-1])  # a view would drag all rows into the file


def write_program(program: torch.export.ExportedProgram, path: Path) -> None:
    """``program`` in torch's own format, ``.pt2``."""
    torch.export.save(program, path.with_suffix(".pt2"))


def write_onnx(program: torch.export.ExportedProgram, path: Path) -> None:
    """``program`` as ``.onnx``. Raises ``RunError`` where it cannot be, or the packages for that are missing."""
    try:
        # Taken apart, attention lays its result out otherwise than fused, and the exporter believes the layout.
        with _silent_exporter(), unfused():
            written = torch.onnx.export(program, (), dynamo=True, verbose=False)
    except ImportError as error:
        raise RunError(
            f"onnx needs more packages ({error}); install: pip install 'esper-grow[onnx]'"
        ) from error
    except RuntimeError as error:
        reason = str(error).partition("## Exception summary")[2].strip().partition("\n")[0]
        raise RunError(
            f"torch cannot write this network as ONNX: {reason or type(error).__name__}"
        ) from error
    assert written is not None
    written.save(path.with_suffix(".onnx"))


@contextmanager
def _silent_exporter() -> Iterator[None]:
    """The exporter warns of its own inner workings, and of packages that it does not find."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _write_code(run: RunFolder, path: Path) -> None:
    write_code(*load_description(run), path.with_suffix(".py"), for_rows=prepares_rows(run))


_WRITERS: dict[str, Writer] = {"export": write_program, "onnx": write_onnx}
