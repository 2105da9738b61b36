"""Copies are those that a clone gives, large ones too."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from esper.growth.copies import LARGE, copy_of

SIDE = 1_100  # squared, in four bytes each, more than LARGE


def tensors() -> list[Tensor]:
    large = torch.randn(SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    assert large.nbytes > LARGE
    return [
        large,
        large.t(),
        large.double(),
        large.bfloat16(),
        nn.Parameter(large),
        large.int(),
        large[:2],
        torch.tensor(3.0),
    ]


@pytest.mark.parametrize(
    "tensor", tensors(), ids=lambda t: f"{t.dtype} {tuple(t.stride())} {type(t).__name__}"
)
def test_a_copy_is_a_clone(tensor: Tensor) -> None:
    copy, clone = copy_of(tensor), tensor.detach().clone()
    assert torch.equal(copy, clone)
    assert (copy.dtype, copy.shape, copy.stride()) == (clone.dtype, clone.shape, clone.stride())
    assert not copy.requires_grad
    assert type(copy) is Tensor


def test_a_copy_stays_what_it_is_when_the_original_changes() -> None:
    large = tensors()[0]
    copy = copy_of(large)
    before = float(copy[0, 0])
    large.add_(1)
    copy[1, 1] = 7
    assert float(copy[0, 0]) == before
    assert float(large[1, 1]) != 7
