"""Laws of lengths: from one traced pair to all lengths."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from esper.blueprints.lengths import Law, law, resampler

LENGTHS = st.lists(st.integers(1, 40), min_size=1, max_size=2).map(tuple)


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [
        ((28, 28), (28, 28), Law("ceil", (1, 1))),
        ((28, 28), (14, 14), Law("ceil", (2, 2))),
        ((15, 15), (8, 8), Law("ceil", (2, 2))),
        ((15, 15), (7, 7), Law("floor", (2, 2))),
        ((28, 28), (1, 1), Law("ceil", (28, 28))),
        ((28, 28), (24, 24), Law("trim", (4, 4))),
        ((28, 30), (30, 32), Law("trim", (-2, -2))),
        ((7, 7), (14, 14), Law("grow", (2, 2))),
        ((28, 28), (14, 28), Law("ceil", (2, 1))),
        ((40,), (13,), Law("floor", (3,))),
        ((40,), (27,), Law("fixed", (27,))),
    ],
)
def test_the_simplest_law_is_found(source: tuple[int, ...], target: tuple[int, ...], expected: Law) -> None:
    assert law(source, target) == expected


@given(st.data())
def test_the_resampler_follows_the_law_on_other_lengths(data: st.DataObject) -> None:
    source = data.draw(LENGTHS)
    size = {"min_size": len(source), "max_size": len(source)}
    target = tuple(data.draw(st.lists(st.integers(1, 40), **size)))
    found = law(source, target)
    assert found.lengths(source) == target
    layer = resampler(found) or torch.nn.Identity()
    for lengths in (source, tuple(length + 3 for length in source)):
        assert tuple(layer(torch.ones(2, 3, *lengths)).shape[2:]) == found.lengths(lengths)


def test_trimming_keeps_the_middle() -> None:
    trim = resampler(law((1, 9), (1, 6)))
    assert trim is not None
    assert trim(torch.arange(9.0).reshape(1, 1, 1, 9)).flatten().tolist() == [1, 2, 3, 4, 5, 6]
