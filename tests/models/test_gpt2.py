"""GPT-2: learned positions, tied embeddings, a linear layer of its own kind."""

from __future__ import annotations

from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel

from esper import Recipe
from models.conformance import Conformance
from models.family import NUM_TOKENS, NUM_WORDS, Family, Logits, Need, logits, words


def _build() -> nn.Module:
    config = GPT2Config(
        vocab_size=NUM_WORDS,
        n_positions=NUM_TOKENS,
        n_embd=16,
        n_layer=2,
        n_head=2,
        initializer_range=0.2,
        bos_token_id=0,
        eos_token_id=0,
    )
    return GPT2LMHeadModel(config)


FAMILY = Family(
    "GPT-2",
    "transformers",
    _build,
    words,
    logits,
    Need("transformer.h.0.mlp.c_fc..transformer.h.0.mlp.c_proj", Recipe.of("mlp", ratio=1.0)),
    plain=Logits,
)


class TestGPT2(Conformance):
    family = FAMILY
