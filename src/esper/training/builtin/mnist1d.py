"""MNIST-1D: ten digits as signals of 40 points (Greydanus and Kobak, 2020), generated here.

The only file that knows the package mnist1d.
"""

from __future__ import annotations

import random
from collections import OrderedDict

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from esper.errors import CheckpointError
from esper.growth import checkpoint
from esper.settings import project_home
from esper.training.data import Data
from esper.training.task import Task

NUM_HELD_OUT = 500


def task(seed: int) -> Task:  # noqa: ARG001 - the split is the published one
    """The published 4,000 rows, the last 500 of them held out, and 1,000 to test; an MLP of 32 units."""
    x, y, x_test, y_test = published()
    cut = len(x) - NUM_HELD_OUT
    data = Data.of((x[:cut], y[:cut]), (x[cut:], y[cut:]), (x_test, y_test))
    return Task(start_network, data, F.cross_entropy, name="mnist1d", total_steps=6_000)


def start_network() -> nn.Module:
    """Three linear layers of 32 units, 2,698 parameters."""
    layers = [("l1", nn.Linear(40, 32)), ("r1", nn.ReLU()), ("l2", nn.Linear(32, 32)), ("r2", nn.ReLU())]
    return nn.Sequential(OrderedDict([*layers, ("l3", nn.Linear(32, 10))]))


def published() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The published set: x (4000, 40), y (4000,), and the same of 1,000 test rows.

    Kept in the project folder.
    """
    folder = project_home() / "data" / "mnist1d"
    try:
        x, y, x_test, y_test = checkpoint.read(folder)
    except CheckpointError:
        x, y, x_test, y_test = _generate()
        checkpoint.write(folder, (x, y, x_test, y_test))
    return x, y, x_test, y_test


def _generate() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The generator seeds Python's and NumPy's global streams; they are put back."""
    from mnist1d.data import make_dataset

    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        made = make_dataset()
    random.setstate(python)
    np.random.set_state(numpy)
    inputs = [torch.tensor(made[name], dtype=torch.float32) for name in ("x", "x_test")]
    targets = [torch.tensor(made[name], dtype=torch.long) for name in ("y", "y_test")]
    return inputs[0], targets[0], inputs[1], targets[1]
