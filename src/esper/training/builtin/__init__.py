"""Tasks that need no files of yours. Each module has one function ``task(seed)``; this is their catalogue."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import cast

from esper.training.task import Task


@dataclass(frozen=True)
class Builtin:
    """A task by name: the module that makes it is imported only when it is asked for."""

    name: str
    description: str
    module: str

    def make(self, seed: int) -> Task:
        """The task; ``seed`` splits the data where no split is published."""
        make = cast("Callable[[int], Task]", vars(import_module(f"{__name__}.{self.module}"))["task"])
        return make(seed)


CATALOGUE = {
    builtin.name: builtin
    for builtin in (
        Builtin("mnist1d", "ten digits as signals of 40 points; an MLP of 32 units, 6,000 steps", "mnist1d"),
        Builtin("digits", "1,797 handwritten digits of 8 × 8 points; an MLP of 8 units", "digits"),
        Builtin("fashion", "12,000 photographs of clothes (Fashion-MNIST); a tiny CNN", "fashion"),
        Builtin("breast-cancer", "a table of 569 rows: malignant or benign", "breast_cancer"),
        Builtin("diabetes", "a table of 442 rows: how far the disease goes, a number", "diabetes"),
        Builtin("chars", "the next character in Python's own standard library; an MLP over 16", "chars"),
    )
}
