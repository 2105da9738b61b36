"""Copies of tensors whose memory is quickly there. Does not know what they are for.

Most of the time that a large copy takes goes into fresh memory, given out by the system in pages of 4 KiB.
"""

from __future__ import annotations

import mmap
import sys
from contextlib import suppress

import torch
from torch import Tensor

LARGE = 4 << 20  # bytes; at least one large page lies in it whole


def copy_of(tensor: Tensor) -> Tensor:
    """What ``tensor.detach().clone()`` gives."""
    plain = (
        tensor.device.type == "cpu"
        and tensor.is_contiguous()
        and type(tensor) in (Tensor, torch.nn.Parameter)
    )
    if not plain or not tensor.is_floating_point() or tensor.nbytes < LARGE:
        return tensor.detach().clone()
    return _fresh(tensor).copy_(tensor.detach())


def _fresh(like: Tensor) -> Tensor:
    """An uninitialised tensor, on large pages where the system has them."""
    if sys.platform != "linux":
        return torch.empty_like(like)
    memory = mmap.mmap(-1, like.nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with suppress(OSError):
        memory.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(memory, dtype=like.dtype).view(like.shape)
