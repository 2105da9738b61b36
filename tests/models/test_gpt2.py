"""GPT-2: learned positions, tied embeddings, a linear layer of its own kind."""

from __future__ import annotations

import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel

from esper import Recipe
from models.conformance import Conformance
from models.family import NUM_TOKENS, NUM_WORDS, Family, Logits, Need, logits, words
from models.proof import Proof


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

    def test_it_generates_the_same_with_and_without_its_cache(self, proof: Proof) -> None:
        prompt = torch.tensor([[1, 2, 3], [4, 5, 6]])
        options = {"max_new_tokens": 4, "min_new_tokens": 4, "do_sample": False, "pad_token_id": 0}
        found, wanted = (proof.network.generate(prompt, use_cache=use, **options) for use in (True, False))
        assert found.shape == (2, 7)
        assert torch.equal(found, wanted)
