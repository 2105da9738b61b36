"""A graph convolutional network on a batch of small graphs, laid side by side as torch_geometric does."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn

from esper import Recipe
from models.conformance import Conformance
from models.family import NUM_CLASSES, NUM_EXAMPLES, Family, Inputs, Need, scores

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated", DeprecationWarning)
    from torch_geometric.nn import GCNConv

NUM_VERTICES = 5


class GCN(nn.Module):
    """Two convolutions over edges, a class for each vertex."""

    def __init__(self) -> None:
        super().__init__()
        self.first = GCNConv(4, 12)
        self.second = GCNConv(12, 12)
        self.head = nn.Linear(12, NUM_CLASSES)

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        x = torch.relu(self.first(x, edges))
        return self.head(torch.relu(self.second(x, edges)))


def _graphs(generator: torch.Generator) -> Inputs:
    """A ring with a chord in each graph."""
    ring = torch.arange(NUM_VERTICES)
    edges = torch.stack([ring, (ring + 1) % NUM_VERTICES])
    chord = torch.randint(NUM_VERTICES, (NUM_EXAMPLES, 2, 1), generator=generator)
    own = torch.cat([edges.expand(NUM_EXAMPLES, 2, NUM_VERTICES), chord], dim=2)
    offsets = NUM_VERTICES * torch.arange(NUM_EXAMPLES)[:, None, None]
    every = (own + offsets).transpose(0, 1).flatten(1)
    x = torch.randn(NUM_EXAMPLES * NUM_VERTICES, 4, generator=generator)
    return x, torch.cat([every, every.flip(0)], dim=1)


FAMILY = Family(
    "Graph convolutional network",
    "torch_geometric",
    GCN,
    _graphs,
    scores,
    Need("second", Recipe.of("mlp", ratio=1.0)),
)


class TestGraph(Conformance):
    family = FAMILY
