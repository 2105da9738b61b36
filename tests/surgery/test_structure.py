"""The tensor that matters inside arguments and outputs."""

from __future__ import annotations

from collections import OrderedDict, namedtuple
from types import MappingProxyType
from typing import Any

import pytest
import torch

from esper.surgery.structure import first_input, first_output, with_first_output

Scores = namedtuple("Scores", ["count", "logits", "state"])
COUNT, LOGITS, STATE, OTHER = torch.arange(3), torch.zeros(2), torch.ones(2), torch.full((2,), 7.0)

OUTPUTS: list[Any] = [
    LOGITS,
    (COUNT, LOGITS, STATE),
    [COUNT, None, LOGITS],
    {"count": COUNT, "logits": LOGITS, "state": STATE},
    OrderedDict(count=COUNT, logits=LOGITS),
    Scores(COUNT, LOGITS, STATE),
    (None, LOGITS),
]


def items(output: Any) -> list[Any]:
    if isinstance(output, torch.Tensor):
        return [output]
    return list(output.values() if isinstance(output, dict) else output)


def test_the_first_floating_tensor_among_the_arguments_counts_positions_before_keywords() -> None:
    assert first_input((COUNT, LOGITS), {"x": STATE}) is LOGITS
    assert first_input((COUNT, "same"), {"flag": True, "x": STATE, "y": LOGITS}) is STATE
    assert first_input((COUNT,), {}) is None
    assert first_input(([LOGITS],), {}) is None


@pytest.mark.parametrize("output", OUTPUTS, ids=lambda output: type(output).__name__)
def test_the_first_floating_tensor_of_an_output_is_found_and_replaced_in_a_copy(output: Any) -> None:
    before = items(output)
    assert first_output(output) is LOGITS
    changed = with_first_output(output, OTHER)
    assert type(changed) is type(output)
    assert first_output(changed) is OTHER
    assert [OTHER if item is LOGITS else item for item in before] == items(changed)
    assert all(a is b for a, b in zip(items(output), before, strict=True))


@pytest.mark.parametrize("output", [COUNT, None, "text", (), (COUNT, (LOGITS,)), {"count": COUNT}, 3.0])
def test_an_output_without_a_floating_tensor_at_its_top_has_none(output: Any) -> None:
    assert first_output(output) is None


def test_any_mapping_is_read() -> None:
    assert first_output(MappingProxyType({"count": COUNT, "logits": LOGITS})) is LOGITS


def test_half_precision_and_complex_parts_are_told_apart() -> None:
    half = torch.zeros(2, dtype=torch.bfloat16)
    assert first_output((torch.zeros(2, dtype=torch.complex64), half)) is half


def test_keys_and_their_order_are_kept() -> None:
    output = {"count": COUNT, "logits": LOGITS, "state": STATE}
    assert list(with_first_output(output, OTHER)) == ["count", "logits", "state"]
