"""LLaMA: rotary positions, grouped queries, a gated feed-forward part, root-mean-square norms."""

from __future__ import annotations

from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from esper import Recipe
from models.conformance import Conformance
from models.family import NUM_TOKENS, NUM_WORDS, Family, Logits, Need, logits, words


def _build() -> nn.Module:
    config = LlamaConfig(
        vocab_size=NUM_WORDS,
        hidden_size=16,
        intermediate_size=32,
        initializer_range=0.2,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=NUM_TOKENS,
        bos_token_id=0,
        eos_token_id=0,
    )
    return LlamaForCausalLM(config)


FAMILY = Family(
    "LLaMA",
    "transformers",
    _build,
    words,
    logits,
    Need("model.layers.1.self_attn.o_proj", Recipe.of("gated", ratio=1.0), lr=1e-2),
    plain=Logits,
)


class TestLLaMA(Conformance):
    family = FAMILY
