"""``bottleneck``: a deep nonlinear function of a few linear directions."""

from __future__ import annotations

from torch import nn

from esper.blueprints.catalogue import SAME_KIND, blueprint
from esper.blueprints.layers import chain, pointwise, zeroed
from esper.blueprints.lengths import law, lengths_of, resampler
from esper.errors import RecipeError
from esper.surgery.site import Port

MOST_DIRECTIONS = 16
UNITS_PER_DIRECTION = 4
FEWEST_UNITS = 16


@blueprint("bottleneck", pairs=SAME_KIND)
def bottleneck(source: Port, target: Port, *, ratio: float = 0.25, rank: int = 0) -> nn.Module:
    """A few linear directions, then two hidden layers: a rough function of little, cheap on wide sites.

    ``rank`` directions, or (0) ``ratio`` times the smaller width, 2 to 16; each hidden layer has
    four units per direction, at least 16.
    """
    if ratio <= 0 or rank < 0:
        raise RecipeError(f"ratio must be positive and rank not negative, not {ratio} and {rank}")
    directions = rank or min(MOST_DIRECTIONS, max(2, round(ratio * min(source.width, target.width))))
    width = max(FEWEST_UNITS, UNITS_PER_DIRECTION * directions)
    return chain(
        resampler(law(lengths_of(source), lengths_of(target))),
        pointwise(source.kind, source.width, directions, bias=False),
        pointwise(source.kind, directions, width),
        nn.ReLU(),
        pointwise(source.kind, width, width),
        nn.ReLU(),
        zeroed(pointwise(target.kind, width, target.width)),
    )
