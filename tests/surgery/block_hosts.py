"""Small networks with one or more blocks, for blocks and for widening. Knows no law."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from esper.surgery.blocks import find_blocks
from esper.surgery.fold import obstacles
from esper.surgery.isolation import isolated
from esper.surgery.site import Site
from esper.surgery.site_map import SiteMap
from esper.surgery.sites import discover
from esper.surgery.trace import trace


class Gated(nn.Module):
    """A gated feed-forward part as in LLaMA, residual."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(6)
        self.gate = nn.Linear(6, 10, bias=False)
        self.up = nn.Linear(6, 10, bias=False)
        self.down = nn.Linear(10, 6, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        return x + self.down(F.silu(self.gate(y)) * self.up(y))


class NewGELU(nn.Module):
    """An activation written by hand, without anything of its own."""

    def forward(self, x: Tensor) -> Tensor:
        return 0.5 * x * (1.0 + torch.tanh(0.7978845608 * (x + 0.044715 * torch.pow(x, 3.0))))


class Conv1D(nn.Module):
    """The linear layer of GPT-2, whose weight is the other way round."""

    def __init__(self, nf: int, nx: int) -> None:
        super().__init__()
        self.nf = nf
        self.nx = nx
        self.weight = nn.Parameter(torch.randn(nx, nf) * 0.3)
        self.bias = nn.Parameter(torch.randn(nf) * 0.1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.addmm(self.bias, x.view(-1, x.size(-1)), self.weight).view(*x.shape[:-1], self.nf)


class Turned(nn.Module):
    """Two such layers."""

    def __init__(self) -> None:
        super().__init__()
        self.c_fc = Conv1D(12, 6)
        self.act = NewGELU()
        self.c_proj = Conv1D(6, 12)

    def forward(self, x: Tensor) -> Tensor:
        return self.c_proj(self.act(self.c_fc(x)))


class Recurrent(nn.Module):
    """A recurrent layer whose outputs, or final state, a linear layer reads."""

    def __init__(self, layer: nn.RNNBase, *, state: bool = False) -> None:
        super().__init__()
        self.layer = layer
        self.state = state
        self.head = nn.Linear(layer.hidden_size * (1 if state else 1 + layer.bidirectional), 3)

    def forward(self, x: Tensor) -> Tensor:
        out, state = self.layer(x)
        if self.state:
            return self.head(state[0][-1] if isinstance(self.layer, nn.LSTM) else state[-1])
        return self.head(torch.tanh(out[:, -1]))


class Viewed(nn.Module):
    """Flattens by the batch size, as is often written."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 5, 3, padding=1)
        self.head = nn.Linear(80, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.conv(x)), 2)
        return self.head(x.view(x.size(0), -1))


class Positions(nn.Module):
    """A linear layer over a sequence that is flattened, positions outside units."""

    def __init__(self) -> None:
        super().__init__()
        self.make = nn.Linear(6, 4)
        self.head = nn.Linear(20, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.make(x)).flatten(1))


class Pooled(nn.Module):
    """The mean over the positions of an image."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 6, 3, bias=False)
        self.norm = nn.GroupNorm(3, 6)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.conv(x)).relu_().mean((2, 3)))


def grouped() -> nn.Sequential:
    """Convolutions in two groups, between dense ones."""
    return nn.Sequential(
        *(nn.Conv2d(2, 8, 1), nn.BatchNorm2d(8), nn.ReLU()),
        *(nn.Conv2d(8, 12, 3, padding=1, groups=2), nn.BatchNorm2d(12), nn.ReLU()),
        *(nn.Conv2d(12, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)),
    )


def depthwise() -> nn.Sequential:
    """An inverted bottleneck."""
    return nn.Sequential(
        *(nn.Conv2d(2, 6, 1, bias=False), nn.BatchNorm2d(6), nn.ReLU6()),
        *(nn.Conv2d(6, 6, 3, padding=1, groups=6), nn.BatchNorm2d(6), nn.PReLU(6)),
        *(nn.Conv2d(6, 4, 1), nn.Flatten(), nn.Linear(64, 3)),
    )


def convolutions() -> nn.Sequential:
    """One-dimensional, with instance norm, pooling and dropout."""
    return nn.Sequential(
        *(nn.Conv1d(2, 5, 3, padding=1), nn.InstanceNorm1d(5, affine=True), nn.GELU(), nn.MaxPool1d(2)),
        *(
            nn.Conv1d(5, 6, 3),
            nn.BatchNorm1d(6),
            nn.Dropout(0.2),
            nn.LeakyReLU(),
            nn.Flatten(),
            nn.Linear(12, 3),
        ),
    )


def perceptron() -> nn.Sequential:
    """Three linear layers, the norm of one between."""
    return nn.Sequential(
        *(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU()),
        *(nn.Linear(8, 7, bias=False), nn.Tanh(), nn.Dropout(0.1), nn.Linear(7, 3)),
    )


class Chunked(nn.Module):
    """A feed-forward part as in BERT: a method of a module whose forward cannot be traced."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = nn.Linear(6, 9)
        self.out = nn.Linear(9, 6)
        self.norm = nn.LayerNorm(6)

    def forward(self, x: Tensor) -> Tensor:
        if x.abs().max() > 1e6:
            raise ValueError("too large")
        return self.feed(x)

    def feed(self, x: Tensor) -> Tensor:
        return self.norm(self.out(F.gelu(self.dense(x))) + x)


class Dropped(nn.Module):
    """Dropout as a function of the mode."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 9)
        self.second = nn.Linear(9, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(F.dropout(F.relu(self.first(x)), 0.2, self.training))


class Causal(nn.Module):
    """Attention of four heads of three features, the number of them left open, residual."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(6, 12, bias=bias) for bias in (True, False, True))
        self.out = nn.Linear(12, 6)

    def forward(self, x: Tensor) -> Tensor:
        num, length, _ = x.shape
        v, q, k = (layer(x).view(num, length, -1, 3).transpose(1, 2) for layer in (self.v, self.q, self.k))
        heads = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return x + self.out(heads.transpose(1, 2).reshape(num, length, -1))


class ByHand(Causal):
    """The same without a mask, and no function of torch for it."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (layer(x).unflatten(-1, (-1, 3)).transpose(1, 2) for layer in (self.q, self.k, self.v))
        weights = torch.softmax(q @ k.transpose(-2, -1) / 2.0, dim=-1)
        return x + self.out((weights @ v).transpose(1, 2).flatten(2))


def encoder() -> nn.Module:
    """Torch's own encoder layer; its feed-forward part is a method."""
    return nn.TransformerEncoderLayer(6, 2, dim_feedforward=10, dropout=0.0, batch_first=True)


@dataclass(frozen=True)
class Case:
    """A network, the shape of one input, and its blocks: producers, consumer and width."""

    name: str
    build: Callable[[], nn.Module]
    shape: tuple[int, ...]
    blocks: tuple[tuple[tuple[str, ...], str, int], ...]

    def make(self, seed: int = 0) -> nn.Module:
        """A fresh network; the same one for the same seed."""
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            return self.build()

    def batch(self, seed: int, num: int = 4) -> Tensor:
        """Normally distributed inputs."""
        return torch.randn(num, *self.shape, generator=torch.Generator().manual_seed(seed))

    def sites(self) -> tuple[Site, ...]:
        """The sites with a block."""
        return tuple(site for site in explored(self.make(), self.batch(0)).sites if site.block is not None)


CASES = (
    Case("perceptron", perceptron, (6,), ((("0",), "3", 8), (("3",), "6", 7))),
    Case("convolutions", convolutions, (2, 8), ((("0",), "4", 5), (("4",), "9", 6))),
    Case("grouped", grouped, (2, 4, 4), ((("0",), "3", 8), (("3",), "6", 12), (("6",), "9", 4))),
    Case("depthwise", depthwise, (2, 4, 4), ((("0",), "6", 6), (("6",), "8", 4))),
    Case("gated", Gated, (5, 6), ((("gate", "up"), "down", 10),)),
    Case("turned", Turned, (5, 6), ((("c_fc",), "c_proj", 12),)),
    Case("viewed", Viewed, (2, 8, 8), ((("conv",), "head", 5),)),
    Case("positions", Positions, (5, 6), ((("make",), "head", 4),)),
    Case("chunked", Chunked, (5, 6), ((("dense",), "out", 9),)),
    Case("dropped", Dropped, (6,), ((("first",), "second", 9),)),
    Case("encoder", encoder, (5, 6), ((("linear1",), "linear2", 10),)),
    Case("causal", Causal, (5, 6), ((("v", "q", "k"), "out", 12),)),
    Case("by_hand", ByHand, (5, 6), ((("q", "k", "v"), "out", 12),)),
    Case("pooled", Pooled, (2, 6, 6), ((("conv",), "head", 6),)),
    *(
        Case(
            f"{kind.__name__.lower()}{'_state' * state}{'_two_ways' * both}",
            lambda kind=kind, both=both, state=state: Recurrent(
                kind(6, 4, num_layers=2, bidirectional=both, batch_first=True), state=state
            ),
            (5, 6),
            ((("layer",), "head", 4),),
        )
        for kind, both, state in (
            (nn.LSTM, False, False),
            (nn.LSTM, True, False),
            (nn.LSTM, False, True),
            (nn.GRU, True, False),
            (nn.GRU, False, True),
            (nn.RNN, False, False),
        )
    ),
)


def explored(model: nn.Module, batch: Tensor) -> SiteMap:
    """The sites of a model with their blocks."""
    with isolated(model):
        seen = trace(model, lambda: model(batch))
    found = discover(seen)
    spans = [site for site in found.offers if site.is_span]
    blocked = obstacles(seen, spans)
    blocks = find_blocks(seen, spans, blocked=blocked)
    left = {name: reason for name, reason in blocked.items() if name not in blocks.found}
    return discover(seen, blocked=left).with_blocks(blocks)
