"""Series made by hand, and a memory whose episodes have known latencies, tokens and outcomes."""

from __future__ import annotations

import sys

import pytest

from esper.memory.analysis import Point, Series


def made(values, metric="latency"):
    points = (Point(place, float(value), (f"episode {place}",)) for place, value in enumerate(values))
    return Series(metric, tuple(points))


@pytest.fixture
def make_series():
    return made


@pytest.fixture
def without(monkeypatch):
    """Makes an installed library seem absent."""

    def hide(library):
        for name in [name for name in sys.modules if name.partition(".")[0] == library]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, library, None)

    return hide
