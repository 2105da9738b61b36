"""How large a model may become. Knows sizes only."""

from __future__ import annotations

from dataclasses import dataclass

from esper.errors import ConfigurationError

SMALL = 10_000


@dataclass(frozen=True)
class Size:
    """Trainable values, and multiply-adds per example of one forward pass."""

    params: int
    macs: int

    def __add__(self, other: Size) -> Size:
        return Size(self.params + other.params, self.macs + other.macs)

    def growth(self, added: Size) -> float:
        """How many times larger a model of this size is with ``added``: mean over parameters and multiply-adds."""
        return 0.5 * (
            (self.params + added.params) / max(self.params, 1) + (self.macs + added.macs) / max(self.macs, 1)
        )


@dataclass(frozen=True)
class Budget:
    """Hard limits of growth. Ratios are of the host at the start, the others absolute; ``None`` is no limit.

    Ratios never forbid a model of fewer than ``SMALL`` parameters or multiply-adds: four times almost nothing is
    almost nothing.

    Args:
        params_ratio: largest number of parameters, as a multiple of the start.
        macs_ratio: largest number of multiply-adds, as a multiple of the start.
        params: largest number of parameters.
        macs: largest number of multiply-adds per example.
        grafts: largest number of grafts.
    """

    params_ratio: float | None = 4.0
    macs_ratio: float | None = None
    params: int | None = None
    macs: int | None = None
    grafts: int | None = None

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value is not None and value <= 0:
                raise ConfigurationError(
                    f"budget: {name} must be above zero, got {value}; None means no limit"
                )

    def refuses(self, start: Size, end: Size, num_grafts: int) -> str | None:
        """Why a model grown from ``start`` to ``end`` by ``num_grafts`` grafts is too large; ``None`` if it is not."""
        for limit, value, words in (
            (_times(self.params_ratio, start.params), end.params, "parameters"),
            (_times(self.macs_ratio, start.macs), end.macs, "multiply-adds"),
            (self.params, end.params, "parameters"),
            (self.macs, end.macs, "multiply-adds"),
            (self.grafts, num_grafts, "grafts"),
        ):
            if limit is not None and value > limit:
                return f"{value:,} {words} would exceed the budget of {limit:,.0f}"
        return None


def _times(ratio: float | None, start: int) -> float | None:
    return None if ratio is None else max(ratio * start, SMALL)
