"""Counts the multiply-adds of whatever runs inside the context. Does not know modules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, sdpa_flop_count


def _rnn_layer_flops(x: Tensor, w_ih: Tensor, w_hh: Tensor, *_: object, **__: object) -> int:
    return 2 * _num_vectors(x) * (w_ih.numel() + w_hh.numel())


def _rnn_flops(x: Tensor, weights: list[Tensor], *_: object, **__: object) -> int:
    return 2 * _num_vectors(x) * sum(w.numel() for w in weights if w.dim() == 2)


def _attention_flops(query: Tensor, key: Tensor, value: Tensor, *_: object, **__: object) -> int:
    return int(sdpa_flop_count(query.shape, key.shape, value.shape))


def _bilinear_flops(x: Tensor, weight: Tensor, _other: Tensor, *_: object, **__: object) -> int:
    """``x`` against the weight, ``(outputs, left, right)``, then what that gives against the other input."""
    return 2 * _num_vectors(x) * (weight.numel() + weight[:, 0].numel())


def _bag_flops(weight: Tensor, indices: Tensor, *_: object, **__: object) -> int:
    """A sparse matrix of bags times the table: one multiply-add per entry of a bag and feature."""
    return 2 * indices.numel() * weight.shape[1]


def _num_vectors(x: Tensor) -> int:
    return x.numel() // x.shape[-1]


# Kernels that torch's own table leaves out.
_LEFT_OUT: dict[Any, Callable[..., int]] = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops,
    torch.ops.aten.mkldnn_rnn_layer: _rnn_layer_flops,
    torch.ops.aten._cudnn_rnn: _rnn_flops,
    torch.ops.aten.miopen_rnn: _rnn_flops,
    torch.ops.aten._trilinear: _bilinear_flops,
    torch.ops.aten._embedding_bag: _bag_flops,
    torch.ops.aten._embedding_bag_forward_only: _bag_flops,
}


class MultiplyAdds(TorchDispatchMode):
    """A context; ``total`` counts the multiply-adds of matrix products (those of bilinear layers and bags of embeddings
    among them), convolutions and attention so far.

    Uses the table of `torch.utils.flop_counter`, without its module tracker, whose global hooks make compiled
    models warn.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._flops = 0

    @property
    def total(self) -> int:
        """Half of the floating-point operations."""
        return self._flops // 2

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        count = _LEFT_OUT.get(func._overloadpacket) or flop_registry.get(func._overloadpacket)
        if count is None:
            # Only inference mode lets composite operations through; their parts are what is counted.
            with self:
                out = func.decompose(*args, **kwargs)
            if out is not NotImplemented:
                return out
        out = func(*args, **kwargs)
        if count is not None:
            self._flops += count(*args, **kwargs, out_val=out)
        return out
