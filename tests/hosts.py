"""A zoo of small networks, one for each habit that growing must cope with. Knows nothing of growing.

``B`` examples, ``T`` time steps, ``V`` vertices, ``F`` features, ``C`` channels, ``K`` classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm
from torch.utils.checkpoint import checkpoint

NUM_EXAMPLES = 8
NUM_CLASSES = 3
NUM_TOKENS = 11

Inputs = tuple[Tensor, ...]
Batch = tuple[Inputs, Tensor]


@dataclass(frozen=True)
class Host:
    """A kind of network with data to train it on.

    ``forward`` asks the model for class scores of shape ``(B, K)``, or ``(B, T, K)`` for one label a time step.
    """

    name: str
    build: Callable[[], nn.Module]
    draw: Callable[[torch.Generator], Inputs]
    forward: Callable[[nn.Module, Inputs], Tensor]
    labels: tuple[int, ...] = (NUM_EXAMPLES,)

    def make(self, seed: int) -> nn.Module:
        """A fresh model in training mode; the same one for the same seed."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.build()

    def batch(self, seed: int) -> Batch:
        """Inputs and class labels; the same ones for the same seed."""
        generator = torch.Generator().manual_seed(seed)
        inputs = self.draw(generator)
        return inputs, torch.randint(NUM_CLASSES, self.labels, generator=generator)

    def loss(self, model: nn.Module, batch: Batch, *, reduction: Literal["mean", "none"] = "mean") -> Tensor:
        """Cross entropy: a scalar, or with ``"none"`` one value per example, shape ``(B,)``."""
        inputs, labels = batch
        scores = self.forward(model, inputs).float()
        losses = F.cross_entropy(scores.flatten(0, -2), labels.flatten(), reduction="none")
        per_example = losses.unflatten(0, labels.shape).flatten(1).mean(1) if labels.dim() > 1 else losses
        return per_example.mean() if reduction == "mean" else per_example


def vectors(*shape: int, batch_dim: int = 0) -> Callable[[torch.Generator], Inputs]:
    """Draws one normally distributed tensor for a batch."""
    sizes = [*shape[:batch_dim], NUM_EXAMPLES, *shape[batch_dim:]]
    return lambda generator: (torch.randn(sizes, generator=generator),)


def tokens(length: int) -> Callable[[torch.Generator], Inputs]:
    """Draws one sequence of token numbers an example."""
    return lambda generator: (torch.randint(NUM_TOKENS, (NUM_EXAMPLES, length), generator=generator),)


def positional(model: nn.Module, inputs: Inputs) -> Tensor:
    """The model returns the scores."""
    return model(*inputs)


class ResidualBlock(nn.Module):
    """Two convolutions, an in-place sum and in-place rectifiers."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x_BCHW: Tensor) -> Tensor:  # noqa: N803
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x_BCHW)))))
        out += x_BCHW
        return self.relu(out)


class ResNet(nn.Module):
    """A stem, residual blocks, global pooling, a linear head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.blocks = nn.Sequential(ResidualBlock(8), ResidualBlock(8))
        self.head = nn.Linear(8, NUM_CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(F.relu_(self.stem(x))).mean((2, 3)))


class SequenceReader(nn.Module):
    """Tokens, an embedding, two LSTM layers with dropout between them, the mean over time."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(NUM_TOKENS, 6)
        self.lstm = nn.LSTM(6, 10, num_layers=2, dropout=0.3, batch_first=True)
        self.head = nn.Linear(10, NUM_CLASSES)

    def forward(self, tokens: Tensor) -> Tensor:
        out, _ = self.lstm(self.embed(tokens))
        return self.head(out.mean(1))


class FinalState(nn.Module):
    """A recurrent layer over time-first input of which only the final state is read."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 6)
        self.gru = nn.GRU(6, 8)
        self.head = nn.Linear(8, NUM_CLASSES)

    def forward(self, x_TBF: Tensor) -> Tensor:  # noqa: N803
        _, state = self.gru(torch.tanh(self.inner(x_TBF)))
        return self.head(state[-1])


class Transformer(nn.Module):
    """Torch's own encoder layers."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, dim_feedforward=16, dropout=0.1, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(8, NUM_CLASSES)

    def forward(self, x_BTF: Tensor) -> Tensor:  # noqa: N803
        return self.head(self.encoder(x_BTF).mean(1))


class PaddedTransformer(nn.Module):
    """Sentences of several lengths: torch's encoder with a padding mask, which it packs on its fast path."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(NUM_TOKENS, 8, padding_idx=0)
        layer = nn.TransformerEncoderLayer(8, 2, dim_feedforward=16, dropout=0.1, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1)
        self.head = nn.Linear(8, NUM_CLASSES)

    def forward(self, tokens: Tensor) -> Tensor:
        padding = tokens == 0
        out = self.encoder(self.embed(tokens), src_key_padding_mask=padding)
        return self.head(out.masked_fill(padding[:, :, None], 0.0).sum(1))


class Pointer(nn.Module):
    """Attention of which the weights are read too, behind a norm by root mean squares."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(6)
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True, dropout=0.1, bias=False)
        self.head = nn.Linear(6, NUM_CLASSES, bias=False)

    def forward(self, x_BTF: Tensor, hidden_BT: Tensor) -> Tensor:  # noqa: N803
        y = self.norm(x_BTF)
        out, weights = self.attention(y, y, y, key_padding_mask=hidden_BT, average_attn_weights=True)
        return self.head(out.mean(1)) + weights.mean(1)[:, :NUM_CLASSES]


class Echo(nn.Module):
    """A plain recurrent layer, read in both directions; batch norm over features, a linear layer without bias."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.RNN(4, 5, batch_first=True, bidirectional=True)
        self.norm = nn.BatchNorm1d(10)
        self.mix = nn.Linear(10, 8, bias=False)
        self.head = nn.Linear(8, NUM_CLASSES)

    def forward(self, x_BTF: Tensor) -> Tensor:  # noqa: N803
        out, _ = self.rnn(x_BTF)
        return self.head(torch.tanh(self.mix(self.norm(out.mean(1)))))


class AttentionBlock(nn.Module):
    """Pre-normalised attention with a causal mask, then a feed-forward part, both residual."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, 2, batch_first=True)
        self.norm2 = nn.LayerNorm(width)
        self.up = nn.Linear(width, 2 * width)
        self.down = nn.Linear(2 * width, width)

    def forward(self, x_BTF: Tensor) -> Tensor:  # noqa: N803
        mask = nn.Transformer.generate_square_subsequent_mask(x_BTF.shape[1])
        y = self.norm1(x_BTF)
        x_BTF = x_BTF + self.attention(y, y, y, attn_mask=mask, need_weights=False)[0]  # noqa: N806
        return x_BTF + self.down(F.gelu(self.up(self.norm2(x_BTF))))


class LanguageModel(nn.Module):
    """Token and position embeddings; the output layer's weight is the token embedding's."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(NUM_TOKENS, 8)
        self.positions = nn.Parameter(torch.randn(6, 8) * 0.1)
        self.blocks = nn.ModuleList([AttentionBlock(8), AttentionBlock(8)])
        self.norm = nn.LayerNorm(8)
        self.head = nn.Linear(8, NUM_TOKENS, bias=False)
        self.head.weight = self.tokens.weight

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.tokens(tokens) + self.positions
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


class Branches(nn.Module):
    """Two branches with keyword arguments, joined; the output is a dictionary. One layer is never called."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Linear(6, 12)
        self.right = nn.Sequential(nn.Linear(4, 12), nn.Tanh(), nn.Linear(12, 12))
        self.join = nn.Linear(24, 10)
        self.head = nn.Linear(10, NUM_CLASSES)
        self.auxiliary = nn.Linear(10, 1)
        self.unused = nn.Linear(3, 2)

    def forward(self, *, wide: Tensor, narrow: Tensor) -> dict[str, Tensor]:
        left = torch.relu(self.left(input=wide))
        hidden = torch.relu(self.join(torch.cat([left, self.right(narrow)], dim=1)))
        return {"scores": self.head(hidden), "value": self.auxiliary(hidden)}


class Shared(nn.Module):
    """One layer called three times, with dropout between the calls."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(6, 12)
        self.again = nn.Linear(12, 12)
        self.dropout = nn.Dropout(0.2)
        self.head = nn.Linear(12, NUM_CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.inner(x))
        for _ in range(3):
            x = F.dropout(torch.relu(self.again(self.dropout(x))), 0.1, self.training)
        return self.head(x)


class Mixture(nn.Module):
    """Experts as one weight tensor, mixed by a gate: a layer that torch has no class for."""

    def __init__(self, width: int, num_out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, num_out, width) * 0.3)
        self.gate = nn.Parameter(torch.randn(width, 3) * 0.3)

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("eof,bf,be->bo", self.weight, x, torch.softmax(x @ self.gate, 1))


class OwnParameters(nn.Module):
    """Layers with parameters of their own, in a module and in a list."""

    def __init__(self) -> None:
        super().__init__()
        self.mixture = Mixture(6, 12)
        self.scales = nn.ParameterList([nn.Parameter(torch.ones(12)), nn.Parameter(torch.zeros(12))])
        self.head = Mixture(12, NUM_CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.mixture(x)) * self.scales[0] + self.scales[1])


class Pair(nn.Module):
    """A layer that returns a tuple."""

    def __init__(self, width: int, num_out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(num_out, width) * 0.3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return F.linear(x, self.weight), x.square().mean()


class TupleOutput(nn.Module):
    """Tuples between layers and at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.first = Pair(6, 12)
        self.second = Pair(12, NUM_CLASSES)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        hidden, penalty = self.first(x)
        scores, more = self.second(torch.relu(hidden))
        return scores, penalty + more


class Counters(nn.Module):
    """State in plain attributes: a counter, a tensor updated in place, one bound anew, a list and a dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(6, 12)
        self.head = nn.Linear(12, NUM_CLASSES)
        self.num_calls = 0
        self.mean = torch.zeros(12)
        self.square: Tensor | None = None
        self.history: list[float] = []
        self.state: dict[str, Tensor] = {"scale": torch.ones(())}

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.tanh(self.inner(x))
        if not self.training:
            return self.head(hidden)
        seen = hidden.detach()
        self.num_calls += 1
        self.mean.mul_(0.9).add_(seen.mean(0), alpha=0.1)
        self.square = (
            seen.square().mean(0) if self.square is None else self.square * 0.9 + seen.square().mean(0) * 0.1
        )
        self.history.append(float(seen.mean()))
        self.state["scale"].mul_(0.99)
        drift = self.num_calls * 1e-3 + sum(self.history) * 1e-2
        return self.head((hidden - self.mean) / (self.square + 1.0) * self.state["scale"] + drift)


class InPlace(nn.Module):
    """Writes into what its layers return: all of it, a slice, and a view."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 12)
        self.second = nn.Linear(12, 12)
        self.head = nn.Linear(12, NUM_CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).relu_()
        x = self.second(x).mul_(0.5)
        x[:, 0] += 1.0
        x[:, 6:].tanh_()
        return self.head(x)


class GraphLayer(nn.Module):
    """Sends each vertex the sum of its neighbours."""

    def __init__(self, width: int, num_out: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, num_out)

    def forward(self, x_BVF: Tensor, *, adjacency: Tensor) -> Tensor:  # noqa: N803
        return torch.relu(adjacency @ self.linear(x_BVF))


class GraphNet(nn.Module):
    """Two graph layers and a readout over vertices."""

    def __init__(self) -> None:
        super().__init__()
        self.first = GraphLayer(4, 10)
        self.second = GraphLayer(10, 10)
        self.head = nn.Linear(10, NUM_CLASSES)

    def forward(self, x_BVF: Tensor, adjacency: Tensor) -> Tensor:  # noqa: N803
        x_BVF = self.second(self.first(x_BVF, adjacency=adjacency), adjacency=adjacency)  # noqa: N806
        return self.head(x_BVF.mean(1))


class Checkpointed(nn.Module):
    """A part with dropout that is computed again in the backward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(6, 12)
        self.part = nn.Sequential(nn.Linear(12, 12), nn.ReLU(), nn.Dropout(0.2), nn.Linear(12, 12))
        self.head = nn.Linear(12, NUM_CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(checkpoint(self.part, torch.relu(self.inner(x)), use_reentrant=False))


def _mlp() -> nn.Module:
    return nn.Sequential(
        nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, NUM_CLASSES)
    )


def _batchnorm_cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 6, 3),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Conv2d(6, 8, 3),
        nn.BatchNorm2d(8, momentum=None),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(32, NUM_CLASSES),
    )


def _spectral() -> nn.Module:
    return nn.Sequential(
        spectral_norm(nn.Linear(6, 12)), nn.ReLU(), spectral_norm(nn.Linear(12, NUM_CLASSES))
    )


def _conv1d() -> nn.Module:
    return nn.Sequential(
        nn.Conv1d(2, 6, 3, padding=1),
        nn.GroupNorm(2, 6),
        nn.ReLU(),
        nn.Conv1d(6, 8, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(8 * 10, NUM_CLASSES),
    )


def _sentences(generator: torch.Generator) -> Inputs:
    """Token numbers; those after the end of a sentence are 0, and one sentence is of full length."""
    tokens = torch.randint(1, NUM_TOKENS, (NUM_EXAMPLES, 7), generator=generator)
    lengths = torch.randint(2, 7, (NUM_EXAMPLES, 1), generator=generator)
    lengths[0] = 7
    return (tokens.masked_fill(torch.arange(7) >= lengths, 0),)


def _partly_hidden(generator: torch.Generator) -> Inputs:
    hidden = torch.rand(NUM_EXAMPLES, 5, generator=generator) < 0.3
    hidden[:, 0] = False
    return torch.randn(NUM_EXAMPLES, 5, 6, generator=generator), hidden


def _graphs(generator: torch.Generator) -> Inputs:
    adjacency = torch.rand(NUM_EXAMPLES, 5, 5, generator=generator) / 5
    return torch.randn(NUM_EXAMPLES, 5, 4, generator=generator), adjacency


def _wide_and_narrow(generator: torch.Generator) -> Inputs:
    return torch.randn(NUM_EXAMPLES, 6, generator=generator), torch.randn(
        NUM_EXAMPLES, 4, generator=generator
    )


def _branched(model: nn.Module, inputs: Inputs) -> Tensor:
    out: dict[str, Any] = model(wide=inputs[0], narrow=inputs[1])
    return out["scores"] + out["value"]


def _first_of_pair(model: nn.Module, inputs: Inputs) -> Tensor:
    scores, penalty = model(*inputs)
    return scores * (1 + penalty)


def _in_bfloat16(model: nn.Module, inputs: Inputs) -> Tensor:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return model(*inputs)


HOSTS: tuple[Host, ...] = (
    Host("mlp", _mlp, vectors(6), positional),
    Host("batchnorm_cnn", _batchnorm_cnn, vectors(1, 8, 8), positional),
    Host("resnet", ResNet, vectors(3, 6, 6), positional),
    Host("lstm", SequenceReader, tokens(7), positional),
    Host("gru_time_first", FinalState, vectors(5, 4, batch_dim=1), positional),
    Host("transformer", Transformer, vectors(5, 8), positional),
    Host("padded_transformer", PaddedTransformer, _sentences, positional),
    Host("pointer", Pointer, _partly_hidden, positional),
    Host("echo", Echo, vectors(7, 4), positional),
    Host("language_model", LanguageModel, tokens(6), positional, labels=(NUM_EXAMPLES, 6)),
    Host("branches", Branches, _wide_and_narrow, _branched),
    Host("shared", Shared, vectors(6), positional),
    Host("spectral", _spectral, vectors(6), positional),
    Host("own_parameters", OwnParameters, vectors(6), positional),
    Host("tuple_output", TupleOutput, vectors(6), _first_of_pair),
    Host("counters", Counters, vectors(6), positional),
    Host("in_place", InPlace, vectors(6), positional),
    Host("conv1d", _conv1d, vectors(2, 10), positional),
    Host("graph", GraphNet, _graphs, positional),
    Host("checkpointed", Checkpointed, vectors(6), positional),
    Host("autocast", _mlp, vectors(6), _in_bfloat16),
)


def host(name: str) -> Host:
    """The host of that name."""
    return next(host for host in HOSTS if host.name == name)
