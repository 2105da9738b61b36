"""An MLP-Mixer: linear layers over places, then over channels."""

from __future__ import annotations

from torch import Tensor, nn

from esper import Recipe
from models.conformance import Conformance
from models.family import NUM_CLASSES, Family, Need, pictures, scores


def _mlp(width: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))


class MixerBlock(nn.Module):
    """Mixes places, then channels; both residual."""

    def __init__(self, num_places: int, width: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
        self.places = _mlp(num_places, 8)
        self.channels = _mlp(width, 16)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.places(self.norms[0](x).transpose(1, 2)).transpose(1, 2)
        return x + self.channels(self.norms[1](x))


class Mixer(nn.Module):
    """Patches of two by two pixels, two blocks, the mean over places."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 12, 2, stride=2)
        self.blocks = nn.Sequential(MixerBlock(16, 12), MixerBlock(16, 12))
        self.norm = nn.LayerNorm(12)
        self.head = nn.Linear(12, NUM_CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        return self.head(self.norm(self.blocks(x)).mean(1))


FAMILY = Family(
    "MLP-Mixer",
    "written here",
    Mixer,
    pictures,
    scores,
    Need("blocks.0.channels.0..blocks.0.channels.2", Recipe.of("mlp", ratio=1.0)),
)


class TestMixer(Conformance):
    family = FAMILY
