"""BERT: post-norm attention without a causal mask, a pooler, a class for each sentence."""

from __future__ import annotations

from torch import nn
from transformers import BertConfig, BertForSequenceClassification

from esper import Recipe
from models.conformance import Conformance
from models.family import NUM_CLASSES, NUM_TOKENS, NUM_WORDS, Family, Logits, Need, logits, words


def _build() -> nn.Module:
    config = BertConfig(
        vocab_size=NUM_WORDS,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        initializer_range=0.2,
        max_position_embeddings=NUM_TOKENS,
        num_labels=NUM_CLASSES,
    )
    return BertForSequenceClassification(config)


FAMILY = Family(
    "BERT",
    "transformers",
    _build,
    words,
    logits,
    Need("bert.encoder.layer.0.output.dense", Recipe.of("mlp", ratio=1.0)),
    plain=Logits,
)


class TestBERT(Conformance):
    family = FAMILY
