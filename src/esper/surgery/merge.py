"""Melts a graft that is a linear map into the linear layer beside it, in place. Does not know why it is there.

``W x + B A x = (W + B A) x``: the layer stays the same object with the same parameters, of other values. A convolution
melts into one whose kernel covers it, with equal stride.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import product

import torch
from torch import Tensor, nn

from esper.surgery.graft import all_grafts, detach, grafts_of, hooks_before_grafts, is_cut

Place = tuple[str, int]
"""An exit module, and the number of a graft among those attached there."""

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d)
_PADS = (nn.ConstantPad1d, nn.ConstantPad2d)


@dataclass(frozen=True)
class _Map:
    """``weight`` is ``(out, in)`` for a linear layer and ``(out, in, *kernel)`` for a convolution.

    For output position ``i``, tap ``j`` reads input position ``first + j * dilation + i * stride``, in each dimension.
    """

    weight: Tensor
    bias: Tensor | None
    first: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()


def mergeable(model: nn.Module) -> list[Place]:
    """The grafts that `merge` can melt, in order."""
    exits = dict.fromkeys(graft.site.exit for _, graft in all_grafts(model))
    return [(name, number) for name in exits for number in _at(model, name)]


@torch.no_grad()
def merge(model: nn.Module, places: Iterable[Sequence[str | int]]) -> list[nn.Parameter]:
    """Melt the grafts at ``places``, all of them found by `mergeable` in this model or in one like it.

    Returns their parameters, which nothing reads any more. The function computed stays the same, up to rounding.
    """
    chosen = [grafts_of(model, str(name))[int(number)] for name, number in places]
    gone = [parameter for graft in chosen for parameter in graft.parameters()]
    for graft in chosen:
        host = model.get_submodule(graft.site.exit)
        own, added = _of_layer(host), _of_body(graft.body)
        assert own is not None
        assert added is not None
        _spread(own, added)
        detach(model, graft)
    return gone


def _at(model: nn.Module, exit_name: str) -> list[int]:
    """Numbers of the grafts at one exit that can melt: those after one that reads the sum so far cannot."""
    host, found = model.get_submodule(exit_name), list[int]()
    own = _of_layer(host)
    if own is None or is_cut(model, exit_name) or hooks_before_grafts(host) or _is_shared(model, host):
        return []
    for number, graft in enumerate(grafts_of(model, exit_name)):
        if graft.site.attachment == "after":
            break
        if not graft.site.is_span and _covers(own, _of_body(graft.body)):
            found.append(number)
    return found


def _is_shared(model: nn.Module, host: nn.Module) -> bool:
    own = set(host.parameters(recurse=False))
    return any(own & set(m.parameters(recurse=False)) for m in model.modules() if m is not host)


def _of_layer(layer: nn.Module) -> _Map | None:
    """What a layer computes, if it is a linear one that holds its own weights; its tensors are not copied."""
    forward, weight = type(layer).forward, layer._parameters.get("weight")
    if weight is None or "forward" in vars(layer):
        return None
    if isinstance(layer, nn.Linear) and forward is nn.Linear.forward:
        return _Map(weight, layer.bias)
    if isinstance(layer, _CONVOLUTIONS) and forward in (nn.Conv1d.forward, nn.Conv2d.forward):
        if layer.groups != 1 or layer.padding_mode != "zeros":
            return None
        return _Map(weight, layer.bias, _first(layer), layer.stride, layer.dilation)
    return None


def _first(layer: nn.Conv1d | nn.Conv2d) -> tuple[int, ...]:
    if layer.padding == "valid":
        return tuple(0 for _ in layer.kernel_size)
    if layer.padding == "same":
        sizes = zip(layer.kernel_size, layer.dilation, strict=True)
        return tuple(-((size - 1) * dilation // 2) for size, dilation in sizes)
    return tuple(-int(amount) for amount in layer.padding)


def _of_body(body: nn.Module) -> _Map | None:
    """What a body computes as one linear layer, in double precision; ``None`` where it is no such thing."""
    layers = [m for m in body.modules() if not isinstance(m, (nn.Sequential, nn.Identity))]
    if not isinstance(body, (nn.Sequential, nn.Linear, *_CONVOLUTIONS)):
        return None
    pad = layers[0] if layers and isinstance(layers[0], _PADS) else None
    layers = layers if pad is None else layers[1:]
    maps = [_of_layer(layer) for layer in layers]
    total = maps[0] if maps else None
    for following in maps[1:]:
        total = _composed(total, following)
    if total is None:
        return None
    total = replace(total, weight=total.weight.double(), bias=_double(total.bias))
    return total if pad is None else _cropped(total, pad)


def _double(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.double()


def _composed(first: _Map | None, second: _Map | None) -> _Map | None:
    """One map that does what the two do, if the second looks at one position at a time."""
    if first is None or second is None or len(first.first) != len(second.first):
        return None
    if second.weight[0, 0].numel() != 1 or any(second.first) or set(second.stride) > {1}:
        return None
    mixing = second.weight.flatten(1).double()
    weight = torch.tensordot(mixing, first.weight.double(), dims=1)
    bias = None if first.bias is None else mixing @ first.bias.double()
    if second.bias is not None:
        bias = second.bias.double() if bias is None else bias + second.bias.double()
    return replace(first, weight=weight, bias=bias)


def _cropped(total: _Map, pad: nn.ConstantPad1d | nn.ConstantPad2d) -> _Map | None:
    """With ``pad`` before it; nothing where it would crop what the map then pads with zeros again."""
    starts = tuple(reversed(pad.padding[::2]))
    pads_again = min(pad.padding) < 0 and min(total.first, default=0) < 0
    if pad.value != 0.0 or pads_again or len(starts) != len(total.first):
        return None
    return replace(total, first=tuple(f - s for f, s in zip(total.first, starts, strict=True)))


def _covers(own: _Map, added: _Map | None) -> bool:
    """Whether each tap of ``added`` is one of ``own``, and there is a bias where one is needed."""
    if added is None or own.stride != added.stride or own.weight.dim() != added.weight.dim():
        return False
    return (added.bias is None or own.bias is not None) and None not in _taps(own, added)


def _taps(own: _Map, added: _Map) -> list[int | None]:
    """For each tap of ``added`` which one of ``own`` reads the same position; both counted as they lie in memory."""
    found: list[int | None] = []
    for place in product(*(_along(own, added, dimension) for dimension in range(len(own.first)))):
        number: int | None = 0
        for tap, size in zip(place, own.weight.shape[2:], strict=True):
            number = None if number is None or tap is None else number * size + tap
        found.append(number)
    return found


def _along(own: _Map, added: _Map, dimension: int) -> list[int | None]:
    """The same in one dimension."""
    found: list[int | None] = []
    for tap in range(added.weight.shape[2 + dimension]):
        position = added.first[dimension] + tap * added.dilation[dimension]
        same, rest = divmod(position - own.first[dimension], own.dilation[dimension])
        found.append(None if rest or not 0 <= same < own.weight.shape[2 + dimension] else same)
    return found


def _spread(own: _Map, added: _Map) -> None:
    """Add ``added`` into the weights of ``own``."""
    change = torch.zeros(own.weight.shape, dtype=torch.float64, device=own.weight.device)
    places, pieces = (weight.reshape(*change.shape[:2], -1) for weight in (change, added.weight))
    for number, tap in enumerate(_taps(own, added)):
        assert tap is not None
        places[..., tap] += pieces[..., number]
    own.weight.copy_(own.weight.double() + change)
    if added.bias is not None:
        assert own.bias is not None
        own.bias.copy_(own.bias.double() + added.bias)
