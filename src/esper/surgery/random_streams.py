"""Saves and sets back the random streams that a training loop may draw from. Does not know why."""

from __future__ import annotations

import ctypes
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.random import mtrand

# What to call with a saved state to have it back, and that state.
Kept = tuple[Callable[[Any], object], Any]

_KEY_BYTES = 624 * 4


def random_streams() -> Iterator[Kept]:
    """The streams of ``random``, of NumPy's global generator, and of torch on every device in use."""
    yield random.setstate, random.getstate()
    yield _NUMPY.state()
    yield torch.set_rng_state, torch.get_rng_state()
    for generator in torch.cuda.default_generators:  # none before CUDA is first used
        yield generator.set_state, generator.get_state()
    if torch.backends.mps.is_available():
        yield torch.mps.set_rng_state, torch.mps.get_rng_state()


@contextmanager
def streams_kept() -> Iterator[None]:
    """Puts the random streams back on exit, for code of growth's own that must not move the caller's."""
    kept = list(random_streams())
    try:
        yield
    finally:
        for restore, state in kept:
            restore(state)


class _NumpyStream:
    """NumPy's global generator.

    Its own functions convert 624 numbers one by one, 32 µs to read and 34 µs to write: a good part of a step of a
    small network. A look at its memory takes half a microsecond and tells whether it has moved. It does not tell
    whether the second normal number of a pair is still pending, but only a draw can make one pending, and a draw
    moves the memory: so memory that once was seen with none pending is known to have none.
    """

    def __init__(self) -> None:
        self._nothing_pending: bytes | None = None

    def state(self) -> Kept:
        """The present state, and what sets it."""
        memory = _memory()
        if memory is not None and memory == self._nothing_pending:
            return _rewind, memory
        state = np.random.get_state(legacy=False)
        self._nothing_pending = None if state["has_gauss"] or memory != _as_memory(state) else memory
        return np.random.set_state, state


_NUMPY = _NumpyStream()


def _memory() -> bytes | None:
    generator = mtrand.get_bit_generator()
    if not isinstance(generator, np.random.MT19937):
        return None
    return ctypes.string_at(generator.ctypes.state_address, _KEY_BYTES + 4)


def _as_memory(state: dict[str, Any]) -> bytes | None:
    """What the memory should look like: were NumPy to change its layout, the quick way would not be taken."""
    inner = state["state"]
    return inner["key"].tobytes() + int(inner["pos"]).to_bytes(4, sys.byteorder) if "pos" in inner else None


def _rewind(memory: bytes) -> None:
    if _memory() != memory:
        key = np.frombuffer(memory[:_KEY_BYTES], dtype=np.uint32)
        np.random.set_state(("MT19937", key, int.from_bytes(memory[_KEY_BYTES:], sys.byteorder), 0, 0.0))
