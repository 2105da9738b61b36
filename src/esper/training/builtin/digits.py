"""Handwritten digits of 8 × 8 points, which scikit-learn ships."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from esper.training.data import Data
from esper.training.scikit import digits
from esper.training.task import Task


def task(seed: int) -> Task:
    """1,797 images as 64 numbers in [0, 1]; an MLP of 8 units."""
    images, labels = digits()
    x = torch.tensor(images.reshape(len(images), 64) / 16, dtype=torch.float32)
    y = torch.tensor(labels, dtype=torch.long)
    data = Data.split((x, y), held_out=0.2, seed=seed)
    return Task(_model, data, F.cross_entropy, name="digits", batch_size=50, total_steps=4_000)


def _model() -> nn.Module:
    return nn.Sequential(nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 10))
