"""Counts multiply-adds and live memory as they happen. Does not know who causes them."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry


class Meter(TorchDispatchMode):
    """``with meter:`` adds the FLOPs (two a multiply-add) of every operation inside to ``meter.flops``.

    The formulas are those of ``torch.utils.flop_counter.FlopCounterMode``. That class itself also tracks
    modules by global hooks, which would stand in the very forward path that is measured; and it counts the
    weight gradient of a grouped convolution ``groups`` times, which would overcharge candidates that train as
    one convolution.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flops = 0
        self._whole: set[Any] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run ``func`` and count it."""
        kwargs = kwargs or {}
        packet = func._overloadpacket
        if packet not in flop_registry and func not in self._whole and not _has_kernel(func):
            with self:
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
            self._whole.add(func)  # asking costs more than most operations
        out = func(*args, **kwargs)
        if packet is torch.ops.aten.convolution_backward:
            self.flops += _convolution_backward_flops(args)
        elif packet in flop_registry:
            self.flops += flop_registry[packet](*args, **kwargs, out_val=out)
        return out


def _has_kernel(func: Any) -> bool:
    """Whether it runs as one piece; the parts of such an operation, where it has any, give other last bits."""
    has_kernel = torch._C._dispatch_has_kernel_for_dispatch_key
    return any(has_kernel(func.name(), key) for key in ("CPU", "CUDA"))


def _convolution_backward_flops(args: tuple[Any, ...]) -> int:
    """Each of the two gradients costs what the forward pass cost."""
    grad_out: Tensor = args[0]
    x: Tensor = args[1]
    weight: Tensor = args[2]
    transposed: bool = args[7]
    wants_input, wants_weight = args[10][:2]
    positions = (x if transposed else grad_out).shape[2:]
    forward = 2 * len(x) * math.prod(positions) * math.prod(weight.shape)
    return forward * (int(wants_input) + int(wants_weight))


def flops_of(work: Callable[[], object]) -> int:
    """FLOPs of calling ``work`` once."""
    meter = Meter()
    with meter:
        work()
    return meter.flops


class PeakMemory(TorchDispatchMode):
    """``with memory:`` follows the bytes of every storage made inside and still alive; ``memory.peak`` is the most.

    What was made before counts from its first use on, except for the storages of ``apart_from``. Tensors of the meta
    device have no memory.
    """

    def __init__(self, apart_from: Iterable[Tensor] = ()) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = 0
        self.peak = 0
        self._apart = [tensor.untyped_storage() for tensor in apart_from]
        self._known: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet(self._apart)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run ``func`` and enter the storages of its results."""
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor) and not leaf.is_meta:
                self._enter(leaf.untyped_storage())
        return out

    def _enter(self, storage: torch.UntypedStorage) -> None:
        if storage not in self._known:
            self._known.add(storage)
            self.live += storage.nbytes()
            self.peak = max(self.peak, self.live)
            weakref.finalize(storage, self._leave, storage.nbytes())

    def _leave(self, size: int) -> None:
        self.live -= size
