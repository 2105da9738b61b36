"""A memory of its own for each test, with a clock that the test turns."""

from __future__ import annotations

import pytest

from esper.memory import Memory

SECOND = 10**9
DAY = 86_400 * SECOND


class HandClock:
    """Moves a millisecond at each look, and as far as it is told."""

    def __init__(self) -> None:
        self.now = 1_800_000_000 * SECOND

    def __call__(self) -> int:
        self.now += 10**6
        return self.now


@pytest.fixture
def clock():
    return HandClock()


@pytest.fixture
def memory(tmp_path, clock):
    with Memory(tmp_path / "memory.db", clock=clock) as opened:
        yield opened
