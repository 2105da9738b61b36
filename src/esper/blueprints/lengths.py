"""How a target's lengths follow from its source's, and the layer that does the same. Knows no widths.

One traced batch shows one pair of lengths; the simplest law that explains it is taken, so that a body also
works on batches of other lengths.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from torch import nn

from esper.surgery.site import Port

Rule = Literal["ceil", "floor", "grow", "trim", "fixed"]
RULES: tuple[Rule, ...] = ("ceil", "floor", "grow", "trim")
MOST_TRIMMED = 8


@dataclass(frozen=True)
class Law:
    """One rule for all dimensions, with an amount for each.

    ceil: ``ceil(n / amount)``; floor: ``n // amount``; grow: ``n * amount``; trim: ``n - amount`` (negative:
    padding); fixed: always ``amount``, whatever the source.
    """

    rule: Rule
    amounts: tuple[int, ...]

    @property
    def is_identity(self) -> bool:
        """Whether target lengths equal source lengths."""
        return self.rule == "ceil" and set(self.amounts) <= {1}

    def lengths(self, source: tuple[int, ...]) -> tuple[int, ...]:
        """Target lengths for these source lengths."""
        return tuple(_follow(self.rule, amount, n) for amount, n in zip(self.amounts, source, strict=True))


def lengths_of(port: Port) -> tuple[int, ...]:
    """The lengths in a port's shape: ``(T,)``, ``(L,)``, ``(H, W)``, or none for a vector."""
    return {
        "vector": (),
        "sequence": port.shape[:1],
        "signal": port.shape[1:],
        "image": port.shape[1:],
    }[port.kind]


def with_lengths(port: Port, lengths: tuple[int, ...]) -> Port:
    """The same port with other lengths."""
    shape = (*lengths, port.width) if port.kind == "sequence" else (port.width, *lengths)
    return Port(port.kind, shape if lengths else port.shape, port.batch_dim)


def law(source: tuple[int, ...], target: tuple[int, ...]) -> Law:
    """The first rule that explains every dimension; ``fixed`` if none does."""
    pairs = list(zip(source, target, strict=True))
    for rule in RULES:
        amounts = [_amount(rule, n, m) for n, m in pairs]
        known = tuple(amount for amount in amounts if amount is not None)
        if len(known) == len(amounts):
            return Law(rule, known)
    return Law("fixed", target)


def resampler(law: Law) -> nn.Module | None:
    """The layer that brings ``[B, C, *source]`` to ``[B, C, *target]``, or None when lengths stay."""
    if law.is_identity:
        return None
    if law.rule == "grow":
        return nn.Upsample(scale_factor=tuple(float(amount) for amount in law.amounts))
    if len(law.amounts) == 1:
        return _resampler1d(law.rule, law.amounts[0])
    height, width = law.amounts
    return _resampler2d(law.rule, height, width)


def _resampler1d(rule: Rule, amount: int) -> nn.Module:
    if rule == "trim":
        return nn.ConstantPad1d(_sides(amount), 0.0)
    if rule == "fixed":
        return nn.AdaptiveAvgPool1d(amount)
    return nn.AvgPool1d(amount, ceil_mode=rule == "ceil")


def _resampler2d(rule: Rule, height: int, width: int) -> nn.Module:
    if rule == "trim":
        return nn.ConstantPad2d((*_sides(width), *_sides(height)), 0.0)
    if rule == "fixed":
        return nn.AdaptiveAvgPool2d((height, width))
    return nn.AvgPool2d((height, width), ceil_mode=rule == "ceil")


def _follow(rule: Rule, amount: int, n: int) -> int:
    if rule == "fixed":
        return amount
    if rule == "trim":
        return n - amount
    if rule == "grow":
        return n * amount
    return math.ceil(n / amount) if rule == "ceil" else n // amount


def _amount(rule: Rule, n: int, m: int) -> int | None:
    """The smallest amount with which ``rule`` makes ``m`` of ``n``, if there is one."""
    if rule == "grow":
        return m // n if m % n == 0 else None
    if rule == "trim":
        return n - m if abs(n - m) <= MOST_TRIMMED else None
    return next((amount for amount in range(1, n + 1) if _follow(rule, amount, n) == m), None)


def _sides(amount: int) -> tuple[int, int]:
    """What to trim on both sides, as torch's padding: negative; the second side takes the odd one."""
    return -(amount // 2), amount // 2 - amount
