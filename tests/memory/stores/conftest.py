"""An empty store of the kind that a test asks for."""

from __future__ import annotations

import pytest

from esper.memory.stores.opening import open_store


@pytest.fixture
def store(location):
    opened = open_store(location)
    yield opened
    opened.close()
