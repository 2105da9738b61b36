"""Writes the finished network of a run as files that need no Esper. The only file that knows ONNX."""

from __future__ import annotations

import logging
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from esper.errors import DataError, RunError
from esper.growth import checkpoint
from esper.training.code import write_code
from esper.training.data import Rows, take
from esper.training.ending import load_model
from esper.training.run import RunFolder
from esper.training.source import make_task

Writer = Callable[[nn.Module, Rows, Path], None]
NUM_EXAMPLES = 2  # torch.export takes a batch of one for a constant


def export_run(run: RunFolder, to: str, folder: Path) -> list[Path]:
    """Write the network of ``run`` into ``folder`` as ``code``, ``safetensors``, ``export`` or ``onnx``.

    The files.

    Raises ``RunError`` when the run is not finished, the network cannot be written so, or the disk refuses.
    """
    name = run.load().task.replace("-", "_")
    with tempfile.TemporaryDirectory() as made:
        if to == "safetensors":
            _copy_weights(run, Path(made) / f"{name}.safetensors")
        else:
            _WRITERS[to](load_model(run), _example(run), Path(made) / name)
        return _move(Path(made), folder)


def _copy_weights(run: RunFolder, path: Path) -> None:
    if run.load().status != "finished":
        raise RunError(f"run {run.name} is not finished; go on with: esper train --resume {run.name}")
    checkpoint.write_tensors(path, checkpoint.read(run.model)["state"])


def _example(run: RunFolder) -> Rows:
    """Inputs of a small batch."""
    rows = take(make_task(run.load().settings).sets.held_out, slice(0, NUM_EXAMPLES))
    return tuple(part.clone() for part in rows[:-1])  # a view would drag all rows into the file


def _program(model: nn.Module, inputs: Rows) -> torch.export.ExportedProgram:
    """The network for batches of any size."""
    batch = torch.export.Dim("batch", min=1)
    try:
        return torch.export.export(model, inputs, dynamic_shapes=({0: batch},) * len(inputs))
    except (RuntimeError, ValueError) as error:
        raise RunError(f"torch.export cannot write this network: {error}") from error


def _write_export(model: nn.Module, inputs: Rows, path: Path) -> None:
    torch.export.save(_program(model, inputs), path.with_suffix(".pt2"))


def _write_onnx(model: nn.Module, inputs: Rows, path: Path) -> None:
    try:
        with _silent_exporter():
            program = torch.onnx.export(_program(model, inputs), (), dynamo=True, verbose=False)
    except ImportError as error:
        raise RunError(
            f"onnx needs more packages ({error}); install: pip install 'esper-grow[onnx]'"
        ) from error
    assert program is not None
    program.save(path.with_suffix(".onnx"))


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


def _write_code(model: nn.Module, inputs: Rows, path: Path) -> None:
    write_code(model, path.with_suffix(".py"), num_inputs=len(inputs))


def _move(source: Path, folder: Path) -> list[Path]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return [Path(shutil.move(path, folder / path.name)) for path in sorted(source.iterdir())]
    except OSError as error:
        raise DataError(f"cannot write into {folder}: {error.strerror}") from error


_WRITERS: dict[str, Writer] = {"code": _write_code, "export": _write_export, "onnx": _write_onnx}
