"""Lets a module that knows plain tensors run where torch's encoder has packed padded sequences. Knows no grafts.

In eval mode without gradients ``nn.TransformerEncoder`` turns a padded batch ``(B, T, D)`` into a nested tensor,
which few operations take.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def on_padded(function: Callable[[Tensor], Tensor], x: Tensor, like: Tensor) -> Tensor:
    """``function(x)``; a nested ``x`` is padded with zeros for it, and the result is as ragged as ``like``."""
    if x.is_nested:
        length = max(map(len, x.unbind())) if like.is_nested or like.dim() != 3 else like.shape[1]
        x = x.to_padded_tensor(0.0, (x.size(0), length, x.size(2)))
    out = function(x)
    if not like.is_nested:
        return out
    rows = zip(out, like.unbind(), strict=True)
    return torch.nested.as_nested_tensor([sequence[: len(other)] for sequence, other in rows])
