"""A network as ``torch.export`` sees it: the operations that one forward pass runs, for batches of any size.

Knows nothing of layers.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr

import torch
from torch import Tensor, fx, nn

from esper.errors import RunError
from esper.training.data import Rows
from esper.training.graph import Description, written
from esper.training.network import evaluating


def program_of(model: nn.Module, inputs: Rows) -> torch.export.ExportedProgram:
    """``model`` in eval mode, exported; ``inputs`` are at least two examples.

    Raises ``RunError`` when ``torch.export`` cannot.
    """
    batch = torch.export.Dim("batch", min=1)
    try:
        with evaluating(model), _silence():
            return torch.export.export(model, inputs, dynamic_shapes=({0: batch},) * len(inputs))
    except (RuntimeError, ValueError, TypeError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise RunError(f"torch.export cannot write this network: {reason}") from error


def describe_program(model: nn.Module, inputs: Rows) -> tuple[Description, dict[str, Tensor]]:
    """The description of ``model`` as operations, and the tensors that ``rebuild`` needs.

    Raises ``RunError`` when it cannot be exported, or returns something else than one tensor or a tuple of them.
    """
    found = program_of(model, inputs).module(check_guards=False)
    _return_as_it_is(found.graph, is_one=_returns_one(model, inputs))
    description = written(found.graph, found)
    return description, {name: found.state_dict()[name].detach() for name in description.weights}


def _returns_one(model: nn.Module, inputs: Rows) -> bool:
    with torch.no_grad(), evaluating(model):
        output = model(*inputs)
    if isinstance(output, Tensor):
        return True
    if type(output) is tuple and all(isinstance(part, Tensor) for part in output):
        return False
    raise RunError(f"this network returns {type(output).__name__}, which only code of its own can")


def _return_as_it_is(graph: fx.Graph, *, is_one: bool) -> None:
    """A program always ends in a tuple of outputs."""
    (end,) = graph.find_nodes(op="output")
    (outputs,) = end.args
    assert isinstance(outputs, tuple)
    end.args = (outputs[0],) if is_one else (outputs,)


@contextmanager
def _silence() -> Iterator[None]:
    """What torch prints on the way to an error is said by the error."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(before)
