"""``mlp``: one hidden layer of rectified units, the plainest nonlinear body."""

from __future__ import annotations

from torch import nn

from esper.blueprints.catalogue import SAME_KIND, blueprint
from esper.blueprints.layers import chain, pointwise, zeroed
from esper.blueprints.lengths import law, lengths_of, resampler
from esper.blueprints.sizes import inner_width
from esper.surgery.site import Port


@blueprint("mlp", pairs=SAME_KIND)
def mlp(source: Port, target: Port, *, ratio: float = 2.0, hidden: int = 0) -> nn.Module:
    """One hidden layer of rectified units: any smooth function of a few features.

    ``hidden`` units, or (0) ``ratio`` times the geometric mean of both widths. Signals and images get
    convolutions of kernel 1, after average pooling where the target is shorter.
    """
    width = inner_width(source, target, ratio=ratio, absolute=hidden)
    return chain(
        resampler(law(lengths_of(source), lengths_of(target))),
        pointwise(source.kind, source.width, width),
        nn.ReLU(),
        zeroed(pointwise(target.kind, width, target.width)),
    )
