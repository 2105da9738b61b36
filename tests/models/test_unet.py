"""A U-Net: down, across, up again, with skips that are concatenated; a class for each pixel."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from esper import Recipe
from models.conformance import Conformance
from models.family import NUM_CLASSES, Family, Need, pictures, scores


class Block(nn.Module):
    """Convolution, group norm, activation."""

    def __init__(self, num_in: int, num_out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(num_in, num_out, 3, padding=1, bias=False)
        self.norm = nn.GroupNorm(2, num_out)

    def forward(self, x: Tensor) -> Tensor:
        return torch.nn.functional.silu(self.norm(self.conv(x)))


class UNet(nn.Module):
    """Two levels."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.ModuleList([Block(3, 8), Block(8, 12)])
        self.pool = nn.MaxPool2d(2)
        self.middle = Block(12, 12)
        self.up = nn.ModuleList(
            [nn.ConvTranspose2d(12, 12, 2, stride=2), nn.ConvTranspose2d(8, 8, 2, stride=2)]
        )
        self.join = nn.ModuleList([Block(24, 8), Block(16, 8)])
        self.head = nn.Conv2d(8, NUM_CLASSES, 1)

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for block in self.down:
            x = block(x)
            skips.append(x)
            x = self.pool(x)
        x = self.middle(x)
        for up, join in zip(self.up, self.join, strict=True):
            x = join(torch.cat([up(x), skips.pop()], dim=1))
        return self.head(x)


FAMILY = Family(
    "U-Net",
    "written here",
    UNet,
    pictures,
    scores,
    Need("join.1.conv", Recipe.of("conv2d")),
)


class TestUNet(Conformance):
    family = FAMILY
