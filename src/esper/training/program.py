"""A network as ``torch.export`` sees it: the operations that one forward pass runs, for batches of any size.

Knows nothing of layers.
"""

from __future__ import annotations

import io
import logging
import operator
import warnings
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

    An input with another number of rows than the first is no batch (the edges of a graph, say): which of its
    lengths may change is left to ``torch.export``. Raises ``RunError`` when ``torch.export`` cannot.
    """
    try:
        with evaluating(model), _silence():
            return torch.export.export(model, inputs, dynamic_shapes=_free(inputs))
    except (RuntimeError, ValueError, TypeError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise RunError(f"torch.export cannot write this network: {reason}") from error


def _free(inputs: Rows) -> tuple[dict[int, torch.export.Dim], ...]:
    """The dimensions of every input that may differ from those of the example."""
    batch, length = torch.export.Dim("batch", min=1), torch.export.Dim.AUTO
    rows = len(inputs[0])
    return tuple({0: batch} if len(x) == rows else dict.fromkeys(range(x.dim()), length) for x in inputs)


def describe_program(model: nn.Module, inputs: Rows) -> tuple[Description, dict[str, Tensor]]:
    """The description of ``model`` as operations, and the tensors that ``rebuild`` needs.

    Raises ``RunError`` when it cannot be exported, or returns something else than one tensor or a tuple of them.
    """
    found = program_of(model, inputs).module(check_guards=False)
    _return_as_it_is(found.graph, is_one=_returns_one(model, inputs))
    description = written(found.graph, found)
    # Not from its state dict, which leaves out constants and buffers that are not to be saved.
    return description, {name: operator.attrgetter(name)(found).detach() for name in description.weights}


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
        with redirect_stderr(io.StringIO()), warnings.catch_warnings():
            # Said of a weight that is computed anew at each call (recurrent layers, weight norm): so does the program.
            warnings.filterwarnings("ignore", "The tensor attributes? self", UserWarning)
            yield
    finally:
        logging.disable(before)
