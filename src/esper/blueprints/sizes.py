"""Sizes of graft bodies relative to their site. Knows no layers."""

from __future__ import annotations

import math

from esper.errors import RecipeError
from esper.surgery.site import Port

SMALLEST = 16


def inner_width(source: Port, target: Port, *, ratio: float, absolute: int = 0) -> int:
    """``absolute`` if given, else ``ratio`` times the geometric mean of both widths, at least 16.

    The geometric mean gives a span that jumps over a narrow layer the size of its wide neighbours, and a
    784-to-10 site something between the two; the floor lets even two features feed a useful block.
    Raises RecipeError unless ``ratio`` is positive and ``absolute`` is not negative.
    """
    if ratio <= 0:
        raise RecipeError(f"ratio must be positive, not {ratio}")
    if absolute < 0:
        raise RecipeError(f"a size must be positive (or 0: relative to the site), not {absolute}")
    return absolute or max(SMALLEST, round(ratio * math.sqrt(source.width * target.width)))
