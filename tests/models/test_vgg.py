"""A VGG-like network: plain convolutions, pooling, a head of several layers with dropout."""

from __future__ import annotations

from torch import Tensor, nn

from esper import Recipe
from models.conformance import Conformance
from models.family import NUM_CLASSES, Family, Need, pictures, scores


def _convolutions(num_in: int, num_out: int) -> list[nn.Module]:
    return [nn.Conv2d(num_in, num_out, 3, padding=1), nn.ReLU(inplace=True)]


class VGG(nn.Module):
    """Two stages of two convolutions each."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *_convolutions(3, 8),
            *_convolutions(8, 8),
            nn.MaxPool2d(2),
            *_convolutions(8, 16),
            *_convolutions(16, 16),
            nn.MaxPool2d(2),
        )
        self.classifier = nn.Sequential(
            nn.Linear(64, 32), nn.ReLU(inplace=True), nn.Dropout(0.1), nn.Linear(32, NUM_CLASSES)
        )
        for layer in self.features:
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).flatten(1))


FAMILY = Family(
    "VGG-like",
    "written here",
    VGG,
    pictures,
    scores,
    Need("classifier.0..classifier.3", Recipe.of("mlp", ratio=1.0), strength=10.0),
)


class TestVGG(Conformance):
    family = FAMILY
