"""Vision transformer: patches, a class token that is a bare parameter, learned positions."""

from __future__ import annotations

from torch import nn
from transformers import ViTConfig, ViTForImageClassification

from esper import Recipe
from models.conformance import Conformance
from models.family import NUM_CLASSES, Family, Logits, Need, logits, pictures


def _build() -> nn.Module:
    config = ViTConfig(
        image_size=8,
        patch_size=4,
        num_channels=3,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        initializer_range=0.2,
        num_labels=NUM_CLASSES,
    )
    return ViTForImageClassification(config)


FAMILY = Family(
    "ViT",
    "transformers",
    _build,
    pictures,
    logits,
    Need("vit.layers.0.mlp.fc1..vit.layers.0.mlp.fc2", Recipe.of("mlp", ratio=1.0), lr=1e-2),
    plain=Logits,
)


class TestViT(Conformance):
    family = FAMILY
