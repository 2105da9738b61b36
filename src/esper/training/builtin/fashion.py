"""Fashion-MNIST (Xiao, Rasul and Vollgraf, 2017), from Debian's package ``dataset-fashion-mnist``."""

from __future__ import annotations

import gzip
import math
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from esper.errors import DataError
from esper.training.data import Data
from esper.training.task import Task

FOLDER = Path("/usr/share/datasets/fashion-mnist")
NUM_TRAIN = 10_000
NUM_HELD_OUT = 2_000


def task(seed: int, *, folder: Path = FOLDER) -> Task:
    """12,000 of the 60,000 training images, 2,000 of them held out, and all 10,000 to test; a tiny CNN."""
    x, y = _read(folder, "train")
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    train, held_out, _ = order.split([NUM_TRAIN, NUM_HELD_OUT, len(x) - NUM_TRAIN - NUM_HELD_OUT])
    data = Data.of((x[train], y[train]), (x[held_out], y[held_out]), _read(folder, "t10k"))
    return Task(start_network, data, F.cross_entropy, name="fashion", total_steps=3_000)


def start_network() -> nn.Module:
    """Two strided convolutions of 4 and 8 channels and a linear layer."""
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(4, 8, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(8 * 7 * 7, 10),
    )


def _read(folder: Path, part: str) -> tuple[Tensor, Tensor]:
    images = _idx(folder / f"{part}-images-idx3-ubyte.gz").float().div(255).sub(0.5)
    return images.unsqueeze(1), _idx(folder / f"{part}-labels-idx1-ubyte.gz").long()


def _idx(path: Path) -> Tensor:
    """An IDX file of bytes: two zeros, type 8, the number of dimensions, each length in four bytes, the
    bytes.
    """
    try:
        content = gzip.decompress(path.read_bytes())
    except FileNotFoundError as error:
        advice = "install it with: sudo apt install dataset-fashion-mnist"
        raise DataError(f"Fashion-MNIST is not on this machine ({path} is missing); {advice}") from error
    except (OSError, EOFError) as error:
        raise DataError(f"{path} is damaged: {error}") from error
    dims = content[3]
    shape = [int.from_bytes(content[4 + 4 * i : 8 + 4 * i], "big") for i in range(dims)]
    if content[:3] != b"\0\0\x08" or len(content) != 4 + 4 * dims + math.prod(shape):
        raise DataError(f"{path} is damaged: not an IDX file of bytes")
    return torch.frombuffer(bytearray(content[4 + 4 * dims :]), dtype=torch.uint8).reshape(shape)
