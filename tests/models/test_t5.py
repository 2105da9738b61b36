"""T5: an encoder and a decoder that share an embedding, relative positions, attention across."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import T5Config, T5ForConditionalGeneration

from esper import Recipe
from models.conformance import Conformance
from models.family import NUM_WORDS, Family, Inputs, Need, words


def _build() -> nn.Module:
    config = T5Config(
        vocab_size=NUM_WORDS, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2, decoder_start_token_id=0
    )
    return T5ForConditionalGeneration(config)


def _question_and_answer(generator: torch.Generator) -> Inputs:
    return (*words(generator), *words(generator))


def _logits(model: nn.Module, inputs: Inputs) -> Tensor:
    return model(input_ids=inputs[0], decoder_input_ids=inputs[1]).logits


class Answering(nn.Module):
    """Returns nothing but the scores."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, question: Tensor, answer: Tensor) -> Tensor:
        return _logits(self.model, (question, answer))


LAYER = "decoder.block.0.layer.2.DenseReluDense"
FAMILY = Family(
    "T5",
    "transformers",
    _build,
    _question_and_answer,
    _logits,
    Need(f"{LAYER}.wi..{LAYER}.wo", Recipe.of("mlp", ratio=1.0)),
    plain=Answering,
)


class TestT5(Conformance):
    family = FAMILY
