"""Every store keeps the contract: SQLite in a file and in memory, and PostgreSQL."""

from __future__ import annotations

import pytest

from esper.testing.memory_store import StoreConformance


@pytest.mark.parametrize("location", ["file", ":memory:", "postgresql"], indirect=True)
class TestStores(StoreConformance):
    pass
