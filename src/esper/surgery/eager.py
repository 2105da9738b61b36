"""Holds torch in eager mode while anybody of the process needs it: compiled code sees no hook that came after it.

Knows nothing of those who hold. They may let go in any order, which nested stances of torch would not survive.
"""

from __future__ import annotations

from contextlib import ExitStack

import torch


class Eager:
    """Counts its holders; torch is in eager mode from the first ``begin`` to the last ``end``."""

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


eager = Eager()
