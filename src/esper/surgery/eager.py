"""What compiled code does not see: hooks that came after it. Knows neither hooks nor modules."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch


class Eager:
    """Holds torch in eager mode from the first ``begin`` to the last ``end``, which may come in any order.

    The stances of torch itself must be left in the order in which they were taken, else the process stays in one.
    """

    def __init__(self) -> None:
        self._num_holders = 0
        self._stance = ExitStack()

    def begin(self) -> None:
        """One more holder."""
        self._num_holders += 1
        if self._num_holders == 1:
            self._stance.enter_context(torch.compiler.set_stance("force_eager"))

    def end(self) -> None:
        """One holder less."""
        self._num_holders -= 1
        if self._num_holders == 0:
            self._stance.close()

    @contextmanager
    def held(self) -> Iterator[None]:
        """A holder for as long as the context lasts."""
        self.begin()
        try:
            yield
        finally:
            self.end()


eager = Eager()


def forget_compiled() -> None:
    """Everything that torch has compiled in this process is compiled anew where it is called next.

    Compiled code does not look for hooks again. What it was made from is not told, so all of it goes; caches on disk
    stay.
    """
    if "torch._dynamo" in sys.modules:
        torch._dynamo.reset_code_caches()
