"""A word model on torch's own encoder, as in torch's examples, whose output weights are those of its embedding."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from esper import Recipe
from models.conformance import Conformance
from models.family import NUM_TOKENS, NUM_WORDS, Family, Need, scores, words


class WordModel(nn.Module):
    """Sines for positions, two encoder layers under a causal mask."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.embed = nn.Embedding(NUM_WORDS, width)
        layer = nn.TransformerEncoderLayer(width, 2, dim_feedforward=32, dropout=0.1, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2)
        self.head = nn.Linear(width, NUM_WORDS, bias=False)
        self.head.weight = self.embed.weight
        angles = torch.arange(NUM_TOKENS)[:, None] * 100.0 ** -(torch.arange(0, width, 2) / width)
        self.register_buffer("positions", torch.cat([angles.sin(), angles.cos()], dim=1))

    def forward(self, tokens: Tensor) -> Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(tokens.shape[1])
        x = self.embed(tokens) * math.sqrt(self.embed.embedding_dim) + self.positions
        return self.head(self.encoder(x, mask=mask, is_causal=True))


FAMILY = Family(
    "Transformer with tied embeddings",
    "torch",
    WordModel,
    words,
    scores,
    Need("encoder.layers.0.self_attn", Recipe.of("attention"), strength=1.0),
)


class TestTied(Conformance):
    family = FAMILY
