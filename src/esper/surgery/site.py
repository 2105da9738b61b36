"""A place in a network where a graft can be attached. Does not know how places are found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from esper.surgery.block import Block

Kind = Literal["vector", "sequence", "signal", "image"]
KINDS: tuple[Kind, ...] = get_args(Kind)
Attachment = Literal["beside", "after"]


@dataclass(frozen=True)
class Port:
    """What a tensor looks like where a graft reads or writes it.

    ``shape`` leaves the batch dimension out: vector ``(D,)``, sequence ``(T, D)``, signal ``(C, L)``,
    image ``(C, H, W)``. Lengths (``T``, ``L``, ``H``, ``W``) are those of the traced batch and may differ
    between batches; widths (``D``, ``C``) may not. ``batch_dim`` is 1 for time-first sequences ``(T, B, D)``.
    """

    kind: Kind
    shape: tuple[int, ...]
    batch_dim: int = 0

    @property
    def width(self) -> int:
        """Number of features (vector, sequence) or channels (signal, image)."""
        return self.shape[0] if self.kind in ("signal", "image") else self.shape[-1]

    def batched(self, num_examples: int) -> tuple[int, ...]:
        """Shape of a batch of ``num_examples``."""
        shape = list(self.shape)
        shape.insert(self.batch_dim, num_examples)
        return tuple(shape)

    def __str__(self) -> str:
        return f"{self.kind} {'×'.join(map(str, self.shape))}"


@dataclass(frozen=True)
class Site:
    """Where a graft reads and where its output is added.

    ``beside`` reads the input of module ``entry`` and adds to the output of module ``exit``; entry and exit are
    the same module, or the two ends of a span. ``after`` reads the output of ``exit`` and adds to it.
    ``source`` is what the graft reads, ``target`` what it must produce. ``block`` is that of the model's own layers
    from ``entry`` to ``exit``, where they are one.
    """

    exit: str
    source: Port
    target: Port
    entry: str = ""
    attachment: Attachment = "beside"
    block: Block | None = None

    def __post_init__(self) -> None:
        if not self.entry:
            object.__setattr__(self, "entry", self.exit)

    @property
    def is_span(self) -> bool:
        """Whether entry and exit are two different modules."""
        return self.entry != self.exit

    @property
    def modules(self) -> tuple[str, ...]:
        """Names of the modules whose weights or place in the network folding a graft at this site may change."""
        own = () if self.block is None else (*self.block.producers, *self.block.middle, self.block.consumer)
        return (self.entry, self.exit, *own)

    @property
    def name(self) -> str:
        """``fc1``, ``fc1..fc2`` for a span, ``fc1+`` for a graft after ``fc1``."""
        if self.attachment == "after":
            return f"{self.exit}+"
        return f"{self.entry}..{self.exit}" if self.is_span else self.exit

    def __str__(self) -> str:
        return f"{self.name} ({self.source} → {self.target})"
