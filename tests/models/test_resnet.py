"""ResNet: convolutions, batch norms and shortcuts."""

from __future__ import annotations

from torch import nn
from transformers import ResNetConfig, ResNetForImageClassification

from esper import Recipe
from models.conformance import Conformance
from models.family import NUM_CLASSES, Family, Logits, Need, logits, pictures


def _build() -> nn.Module:
    config = ResNetConfig(
        num_channels=3,
        embedding_size=8,
        hidden_sizes=[8, 16],
        depths=[1, 1],
        layer_type="basic",
        num_labels=NUM_CLASSES,
    )
    return ResNetForImageClassification(config)


FAMILY = Family(
    "ResNet",
    "transformers",
    _build,
    pictures,
    logits,
    Need("classifier.1", Recipe.of("mlp", ratio=1.0), strength=10.0),
    plain=Logits,
)


class TestResNet(Conformance):
    family = FAMILY
