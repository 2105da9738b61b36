"""The graph of a forward pass, and what it costs to find."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, fx, nn
from torch.utils import checkpoint

from esper.surgery.forward_graph import graph_of


class Written(nn.Module):
    """An activation written by hand."""

    def forward(self, x: Tensor) -> Tensor:
        """Twice the positive part."""
        return 2 * torch.relu(x)


class Recomputed(nn.Module):
    """Asks for checkpointing by the name that torch's own examples use."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        """One layer checkpointed, then several."""
        hidden = checkpoint.checkpoint(self.one, x, use_reentrant=False)
        found: Tensor = checkpoint.checkpoint_sequential([self.one, self.two], 1, hidden, use_reentrant=False)
        return found


def chain() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.ReLU(), nn.Linear(4, 4)), nn.Linear(4, 2))


@pytest.mark.parametrize("inside", [[], ["0", "2"]])
def test_a_chain_has_the_graph_that_tracing_gives_without_being_traced(
    inside: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Leaves(fx.Tracer):
        def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:  # noqa: ARG002
            return True

    traced = Leaves().trace(chain())
    monkeypatch.setattr(fx.Tracer, "trace", None)
    assert str(graph_of(chain(), inside)) == str(traced)


def test_a_chain_inside_of_which_something_is_asked_for_is_traced() -> None:
    called = [node.target for node in graph_of(chain(), ["0", "1.1"]).nodes if node.op == "call_module"]
    assert called == ["0", "1.0", "1.1", "2"]


def test_activations_in_a_chain_are_written_out_when_that_is_asked_for() -> None:
    model = nn.Sequential(nn.Linear(4, 4), Written())
    graph = graph_of(model, ["0"], into=lambda module: isinstance(module, Written))
    assert [node.op for node in graph.nodes] == [
        "placeholder",
        "call_module",
        "call_function",
        "call_function",
        "output",
    ]


def test_checkpointed_parts_stay_one_call() -> None:
    called = [node.target for node in graph_of(Recomputed(), []).nodes if node.op == "call_function"]
    assert called == [checkpoint.checkpoint, checkpoint.checkpoint_sequential]
