"""One thread a test process, and no test reads or writes the caller's own ``.esper``."""

from __future__ import annotations

import gc
import os

import hypothesis
import pytest
import torch

torch.set_num_threads(1)
# And in what they start: the threads of two workers would wait for each other.
os.environ["OMP_NUM_THREADS"] = "1"

# The same examples every time, and nothing that depends on how fast the machine is.
hypothesis.settings.register_profile(
    "house",
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("house")


def pytest_collection_finish():
    """What the imports have left lives as long as the process: the collector need not go through it again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def home(tmp_path_factory, monkeypatch):
    """A fresh project folder in the place of the caller's."""
    folder = tmp_path_factory.mktemp("esper")
    monkeypatch.setenv("ESPER_HOME", str(folder))
    return folder
