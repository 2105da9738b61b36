"""The next character of program text: Python's own standard library, which every machine with Python has."""

from __future__ import annotations

import sysconfig
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from esper.errors import DataError
from esper.training.data import Data, Rows
from esper.training.task import Task

CONTEXT = 16
ALPHABET = "\n" + "".join(map(chr, range(32, 127)))
UNKNOWN = len(ALPHABET)
NOT_LIBRARY = {"site-packages", "dist-packages", "test", "tests", "idlelib"}
NUM_TRAIN, NUM_HELD_OUT, NUM_TEST = 60_000, 3_000, 10_000


def task(seed: int, *, folder: Path | None = None) -> Task:
    """Predict a character from the 16 before it.

    No two windows overlap, and each set has files of its own.
    """
    files = _shuffled_files(folder or Path(sysconfig.get_path("stdlib")), seed)
    train, held_out, test = (_rows(_windows(files, size)) for size in (NUM_TRAIN, NUM_HELD_OUT, NUM_TEST))
    data = Data.of(train, held_out, test)
    return Task(start_network, data, F.cross_entropy, name="chars", total_steps=4_000)


def start_network() -> nn.Module:
    """Characters as 12 numbers each, one hidden layer of 32 units."""
    size = len(ALPHABET) + 1
    layers = [
        ("embed", nn.Embedding(size, 12)),
        ("flat", nn.Flatten()),
        ("hidden", nn.Linear(12 * CONTEXT, 32)),
    ]
    return nn.Sequential(OrderedDict([*layers, ("relu", nn.ReLU()), ("out", nn.Linear(32, size))]))


def _shuffled_files(folder: Path, seed: int) -> list[Path]:
    """Library files in an order of ``seed``; tests and what was installed later are left out."""
    files = [
        path
        for path in sorted(folder.glob("**/*.py"))
        if not NOT_LIBRARY.intersection(path.relative_to(folder).parts)
    ]
    order = torch.randperm(len(files), generator=torch.Generator().manual_seed(seed))
    return [files[index] for index in order.tolist()]


def _windows(files: list[Path], num_windows: int) -> Tensor:
    """Windows ``(num_windows, CONTEXT + 1)`` of character numbers; the files that they fill are taken off the list."""
    parts: list[Tensor] = []
    while sum(map(len, parts)) < num_windows:
        if not files:
            raise DataError(
                "too little Python text for the task 'chars'; install Python's whole standard library"
            )
        parts.append(_encode(files.pop().read_text(encoding="utf-8", errors="replace")))
    return torch.cat(parts)[:num_windows]


def _encode(text: str) -> Tensor:
    position = {character: number for number, character in enumerate(ALPHABET)}
    numbers: Sequence[int] = [position.get(character, UNKNOWN) for character in text]
    width = CONTEXT + 1
    whole = len(numbers) // width * width
    return torch.tensor(numbers[:whole], dtype=torch.long).reshape(-1, width)


def _rows(windows: Tensor) -> Rows:
    return windows[:, :-1].contiguous(), windows[:, -1].contiguous()
