"""The description of a network from which an equal one can be made, by whichever way of tracing does it.

Does not know where it is kept.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from esper.errors import RunError
from esper.training.data import Rows
from esper.training.graph import Description, describe, rebuild, weights_of
from esper.training.network import evaluating
from esper.training.program import describe_program


def described(model: nn.Module, inputs: Rows) -> tuple[Description, dict[str, Tensor]]:
    """What ``rebuild`` needs: layers where ``torch.fx`` sees them, else the operations that ``torch.export`` sees.

    Raises ``RunError`` when neither gives a network with the outputs that ``model`` has for ``inputs``.
    """
    try:
        description = describe(model, num_inputs=len(inputs))
        state = weights_of(model, description)
        _check_twin(model, rebuild(description, state), inputs)
    except RunError as error:
        try:
            description, state = describe_program(model, inputs)
        except RunError as other:
            raise RunError(f"{error}; {other}") from error
        _check_twin(model, rebuild(description, state), inputs)
    return description, state


def _check_twin(model: nn.Module, twin: nn.Module, inputs: Rows) -> None:
    """Hooks, for one, are no part of a graph of layers."""
    with torch.no_grad(), evaluating(model):
        if not torch.allclose(twin(*inputs), model(*inputs), rtol=1e-4, atol=1e-5):
            raise RunError(
                "this network does something that no graph of it shows, such as drawing at random in eval mode"
            )
