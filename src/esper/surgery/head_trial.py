"""Tries whether the heads of attention go one by one. Does not know where attention is.

With random weights, on what its module was given: a module that does without a head what it does when nobody reads
that head takes the number of heads from its tensors, or from an attribute known by its name, and lets no head hear of
another.
"""

from __future__ import annotations

import copy
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from esper.surgery.block import Count
from esper.surgery.names import relative
from esper.surgery.structure import first_output

TOLERANCE = (
    0.05  # times the root of the precision and the largest output: rounding, but no head, stays below it
)
NUM_ENDS = 3  # query, key and value
HEADS = ("num_heads", "n_heads", "n_head", "nhead", "heads", "num_attention_heads")
FEATURES = ("split_size", "inner_dim", "all_head_size")
"""Attributes of attention by which its heads, and the features of all, are usually counted."""


@dataclass(frozen=True)
class Attention:
    """Linear layers, ``width`` what the last one reads, and the module that holds all.

    Of the producers there are three of that width, or one three times as wide.
    """

    holder: str
    producers: tuple[str, ...]
    consumer: str
    width: int

    @property
    def parts(self) -> int:
        """How often a producer makes every feature."""
        return NUM_ENDS // len(self.producers)

    def counts(self, holder: nn.Module, head: int) -> tuple[Count, ...]:
        """The attributes of ``holder`` that count heads of that width, or their features."""
        own = vars(holder)
        known = [*((name, head) for name in HEADS), *((name, 1) for name in FEATURES)]
        return tuple(
            Count(self.holder, name, each)
            for name, each in known
            if type(own.get(name)) is int and own[name] * each == self.width
        )

    def inside(self, name: str) -> str:
        """The name of a module as the holder knows it."""
        return relative(name, self.holder)


class Trial:
    """Calls one module with other weights; what it is given is copied before each call, as it may be a cache."""

    def __init__(self, module: nn.Module, attention: Attention, args: Any, kwargs: Any) -> None:
        self._module = module
        self._given = args, kwargs
        self._attention = attention
        self._producers = [attention.inside(name) for name in attention.producers]
        self._reader = attention.inside(attention.consumer)
        self._width = attention.width
        self._weights = {
            f"{name}.weight": _random(module.get_submodule(name).get_parameter("weight"), seed)
            for seed, name in enumerate([*self._producers, self._reader])
        }

    def head_width(self) -> int | None:
        """Features of a head, if every producer is split into heads of this width, be their number open or said."""
        views = _Views()
        with ExitStack() as stack:
            for name in self._producers:
                hook = partial(views.made_by, name)
                stack.callback(self._module.get_submodule(name).register_forward_hook(hook).remove)
            with views:
                self._call({})
        widths = {width for name in self._producers for width in views.widths[name] or {None}}
        width = self._said() if widths == {None} else widths.pop() if len(widths) == 1 else None
        return None if not width or self._width // width < 2 or self._width % width else width

    def _said(self) -> int | None:
        """Features of a head, if an attribute says how many heads there are."""
        own = vars(self._module)
        said = {own[name] for name in HEADS if type(own.get(name)) is int and own[name] > 0}
        return self._width // said.pop() if len(said) == 1 else None

    def heads_are_apart(self, width: int) -> bool:
        """Whether the module does without its first head, and its last, what it does when nobody reads them."""
        features = torch.arange(self._width, device="cpu").view(-1, width)
        return all(self._does_without(gone, features) for gone in (0, len(features) - 1))

    def _does_without(self, gone: int, features: Tensor) -> bool:
        left = torch.cat([features[:gone], features[gone + 1 :]]).flatten()
        name = f"{self._reader}.weight"
        reader, dim = self._weights[name], self._dim(self._reader, made=False)
        silent = reader.index_fill(dim, features[gone].to(reader.device), 0.0)
        with_all = self._call(self._weights)
        wanted = self._call({**self._weights, name: silent})
        sliced = self._sliced(left)
        with self._told(features.shape[1]):
            found = self._call(sliced)
            if found.shapes != wanted.shapes:
                return False
            bound = TOLERANCE * torch.finfo(wanted.main.dtype).eps ** 0.5 * float(with_all.main.abs().max())
            same = wanted.differs(found) <= bound < wanted.differs(with_all)
            return same and self._trains(sliced, found.main.shape)

    @contextmanager
    def _told(self, head: int) -> Iterator[None]:
        """Attributes that count heads, and features of layers, say that there is one head less."""
        attention, module = self._attention, self._module
        counted = [(module, count.name, head // count.each) for count in attention.counts(module, head)]
        for name in self._producers:
            producer = module.get_submodule(name)
            counted += [(producer, key, head * attention.parts) for key in ("nf",) if key in vars(producer)]
        kept = [(vars(part), name, vars(part)[name]) for part, name, _ in counted]
        try:
            for part, name, less in counted:
                vars(part)[name] -= less
            yield
        finally:
            for own, name, value in kept:
                own[name] = value

    def _dim(self, name: str, *, made: bool) -> int:
        """The dimension of a weight that features lie along, ``made`` or read."""
        return int(isinstance(self._module.get_submodule(name), nn.Linear) is not made)

    def _sliced(self, left: Tensor) -> dict[str, Tensor]:
        reader = f"{self._reader}.weight"
        sliced = {reader: self._weights[reader].index_select(self._dim(self._reader, made=False), left)}
        made = torch.cat([left + part * self._width for part in range(self._attention.parts)])
        for name in self._producers:
            dim = self._dim(name, made=True)
            sliced[f"{name}.weight"] = self._weights[f"{name}.weight"].index_select(dim, made)
            bias = self._module.get_submodule(name)._parameters.get("bias")
            if bias is not None:
                sliced[f"{name}.bias"] = bias.detach()[made]
        return sliced

    def _trains(self, weights: dict[str, Tensor], shape: torch.Size) -> bool:
        """Whether the way that is taken in training mode can be gone, too."""
        modules = list(self._module.modules())
        try:
            for module in modules:
                vars(module)["training"] = True
            return self._call(weights).main.shape == shape
        finally:
            for module in modules:
                vars(module)["training"] = False

    def _call(self, weights: dict[str, Tensor]) -> _Output:
        args, kwargs = copy.deepcopy(self._given)
        output = functional_call(self._module, weights, args, kwargs)
        main = first_output(output)
        if main is None:
            raise TypeError("no tensor")
        others = [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor) and leaf is not main]
        return _Output(main, [main.shape, *(other.shape for other in others if not _are_shares(other))])


class _Output(NamedTuple):
    """What a module returns first, and the shapes of all that may be handed on: not of what shares each head took."""

    main: Tensor
    shapes: list[torch.Size]

    def differs(self, other: _Output) -> float:
        """By how much, at the most."""
        return float((self.main - other.main).abs().max())


def _are_shares(tensor: Tensor) -> bool:
    """Whether they sum up to one along the last dimension."""
    if not tensor.dim() or not tensor.is_floating_point():
        return False
    sums = tensor.sum(-1)
    return torch.allclose(sums, torch.ones_like(sums), atol=1e-2)


class _Views(TorchFunctionMode):
    """How wide the parts are into which outputs of modules are split, where the number of parts is left open."""

    def __init__(self) -> None:
        super().__init__()
        self.widths: dict[str, set[int | None]] = defaultdict(set)
        self._makers: list[tuple[Tensor, str]] = []

    def made_by(self, name: str, _: nn.Module, __: object, output: Tensor) -> None:
        """Module ``name`` has returned ``output``."""
        self._makers.append((output, name))

    def __torch_function__(
        self, func: Callable[..., Any], types: object, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Looks on."""
        name = next((maker for tensor, maker in self._makers if args and tensor is args[0]), None)
        if name is not None and func in (Tensor.view, Tensor.reshape, Tensor.unflatten, torch.reshape):
            self.widths[name].add(_open_split(args[1:], kwargs or {}))
        out = func(*args, **(kwargs or {}))
        if name is not None and func in (Tensor.split, torch.split, Tensor.chunk, torch.chunk):
            self._makers += [(part, name) for part in out]
        return out


def _open_split(shape: tuple[Any, ...], named: Mapping[str, Any]) -> int | None:
    """``d`` of a split of the last dimension into ``(-1, d)``."""
    *_, last = (*shape, *named.values())
    sizes = list(last) if isinstance(last, tuple | list) else list(shape)
    if len(sizes) < 2 or sizes[-2] != -1 or not isinstance(sizes[-1], int):
        return None
    return sizes[-1]


def _random(like: Tensor, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(like.shape, generator=generator, device="cpu") / math.sqrt(like.shape[1])
    return values.to(device=like.device, dtype=like.dtype)
