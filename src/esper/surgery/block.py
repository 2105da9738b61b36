"""A block of a network as plain data: layers that make units, treat each unit alone, and read them all again.

``producers → (norm, pointwise, dropout, pooling, flatten)* → consumer``: more units are more of the same in every
layer. Does not know how blocks are found, or what is done with them.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

Role = Literal["producer", "layer", "function", "consumer"]
ATTENTION = "attention"
"""The kind of a function of queries, keys and values, of which no head hears of another."""
Plain = bool | int | float | str | None | tuple[int | float | None, ...]


class Ref(msgspec.Struct, frozen=True):
    """The output of another layer of the block, by number; -1 is what the block reads."""

    layer: int


class Layer(msgspec.Struct, frozen=True):
    """One layer of ``torch.nn`` or function of torch, without its share of the units.

    ``kind`` is the name of the class or function. ``options`` are those arguments of the class that do not depend on
    the number of units, sorted by name; ``args`` those of the call. ``module`` is its name in the model, empty for a
    function. A producer makes all units ``parts`` times, one time after the other: queries, keys and values, say.
    """

    role: Role
    kind: str
    args: tuple[Ref | Plain, ...]
    options: tuple[tuple[str, Plain], ...] = ()
    module: str = ""
    parts: int = 1

    @property
    def of_class(self) -> dict[str, Any]:
        """The options as keyword arguments."""
        return dict(self.options)


class Count(msgspec.Struct, frozen=True):
    """An attribute ``name`` of ``module`` that counts the units of a block, by ``each`` of them."""

    module: str
    name: str
    each: int


class Block(msgspec.Struct, frozen=True):
    """Layers in the order of their calls, the consumer last; ``width`` units.

    ``outer`` and ``inner`` say where the units lie among the features that the consumer reads: as in an array of shape
    ``(outer, width, inner)`` that was flattened; ``inner`` is the number of positions of a flattened image. Where a
    convolution has ``groups``, units are added to each group alike. Only a multiple of ``multiple`` can be added.
    Of one that is ``bound`` a graft must become a part: the forward pass around it cannot be written anew.
    ``counts`` are attributes of the modules around that must say how many units there are.
    """

    layers: tuple[Layer, ...]
    width: int
    outer: int = 1
    inner: int = 1
    groups: int = 1
    multiple: int = 1
    bound: bool = False
    counts: tuple[Count, ...] = ()

    @property
    def num_heads(self) -> int:
        """Of attention the number of heads, whose features are the units; 0 where these are no heads."""
        return self.width // self.multiple if any(layer.kind == ATTENTION for layer in self.layers) else 0

    @property
    def producers(self) -> tuple[str, ...]:
        """Names of the modules that make the units."""
        return tuple(layer.module for layer in self.layers if layer.role == "producer")

    @property
    def middle(self) -> tuple[str, ...]:
        """Names of the modules between producers and consumer."""
        return tuple(layer.module for layer in self.layers if layer.role == "layer" and layer.module)

    @property
    def consumer(self) -> str:
        """Name of the module that reads the units."""
        return self.layers[-1].module

    def __str__(self) -> str:
        return f"{' and '.join(self.producers)} → {self.consumer} ({self.width} units)"
