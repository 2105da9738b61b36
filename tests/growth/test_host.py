"""What is asked of a model costs the memory of a batch or two, however many are held out."""

from __future__ import annotations

import weakref
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from esper import held_out
from esper.growth.host import Host
from esper.surgery.capture import MAX_PASSES
from esper.surgery.site import Port, Site

NUM_BATCHES = MAX_PASSES + 3


class Graphs:
    """Held-out losses that count the graphs alive when a batch begins."""

    def __init__(self) -> None:
        self._alive: list[weakref.ref[Tensor]] = []
        self.counts: list[int] = []

    def __call__(self, model: nn.Module, batch: Tensor) -> Tensor:
        self.counts.append(sum(ref() is not None for ref in self._alive))
        output = model(batch)
        if output.requires_grad:
            kept = output * 1.0
            self._alive.append(weakref.ref(kept))
            return (kept * kept).sum(1)
        return (output * output).sum(1)


def asked() -> tuple[Host, Graphs]:
    torch.manual_seed(0)
    model, graphs = nn.Linear(3, 2), Graphs()
    batches = [torch.randn(4, 3) for _ in range(NUM_BATCHES)]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    return Host(model, held_out(batches, per_example=graphs), optimizer), graphs


@pytest.mark.parametrize(
    "ask", [Host.examine, lambda host: host.evaluate(host.model)], ids=["examine", "evaluate"]
)
def test_graphs_of_held_out_batches_do_not_pile_up(ask: Callable[[Host], object]) -> None:
    host, graphs = asked()
    ask(host)
    assert len(graphs.counts) == NUM_BATCHES
    assert max(graphs.counts) <= 1


def test_the_first_look_finds_gradients_and_the_losses_of_every_batch() -> None:
    host, _ = asked()
    found = host.examine()
    assert host.differentiable
    assert found.tolist() == host.losses().tolist()
    assert len(found) == 4 * NUM_BATCHES


def test_gradients_are_taken_of_as_many_batches_as_are_kept() -> None:
    host, graphs = asked()
    host.examine()
    graphs.counts.clear()
    site = Site("", Port("vector", (3,)), Port("vector", (2,)))
    assert len(host.pairs([site])[site.name]) == MAX_PASSES
    assert len(graphs.counts) == MAX_PASSES
