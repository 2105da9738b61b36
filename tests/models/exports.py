"""Ways in which a network leaves: each is written, and read back by what knows no Esper."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import onnxruntime
import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from esper.training.code import write_code
from esper.training.export import write_onnx, write_program
from esper.training.twin import described
from models.family import Inputs

Answer = Callable[..., Tensor]
"""What was read back: asked with the inputs, it gives the outputs."""


def exported(program: ExportedProgram, folder: Path) -> Answer:
    """What ``torch.export`` wrote."""
    path = folder / "network.pt2"
    write_program(program, path)
    return torch.export.load(path).module()


def as_onnx(program: ExportedProgram, folder: Path) -> Answer:
    """ONNX, run by onnxruntime."""
    path = folder / "network.onnx"
    write_onnx(program, path)
    session = onnxruntime.InferenceSession(path)
    names = [given.name for given in session.get_inputs()]

    def run(*given: Tensor) -> Tensor:
        feeds = {name: tensor.numpy() for name, tensor in zip(names, given, strict=True)}
        return torch.from_numpy(session.run(None, feeds)[0])

    return run


def as_code(model: nn.Module, inputs: Inputs, folder: Path) -> Answer:
    """A Python file that imports torch only."""
    path = folder / "network.py"
    write_code(*described(model, inputs), path)
    spec = importlib.util.spec_from_file_location("network", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.load()
