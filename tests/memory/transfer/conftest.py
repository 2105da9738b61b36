"""A second memory to read into."""

from __future__ import annotations

import pytest

from esper.memory import Memory


@pytest.fixture
def other(tmp_path, clock):
    with Memory(tmp_path / "other.db", clock=clock) as opened:
        yield opened
