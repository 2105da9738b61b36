"""``ffn``: the feed-forward block of a transformer, norm first (Xiong et al. 2020, arXiv:2002.04745)."""

from __future__ import annotations

from torch import Tensor, nn

from esper.blueprints.catalogue import SAME_KIND, blueprint
from esper.blueprints.layers import chain, pointwise, traced, zeroed
from esper.blueprints.lengths import law, lengths_of, resampler
from esper.blueprints.sizes import inner_width
from esper.surgery.site import Kind, Port

NARROWEST = 4


class _ChannelNorm(nn.Module):
    """Layer norm over the channels of each position of ``[B, C, *lengths]``."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(x.movedim(1, -1)).movedim(-1, 1)
        return y


def width_norm(kind: Kind, width: int) -> nn.Module:
    """Layer norm over the width of each position, wherever the width lies."""
    return traced(_ChannelNorm(width)) if kind in ("signal", "image") else nn.LayerNorm(width)


def wide_enough_to_normalise(source: Port, target: Port) -> str | None:  # noqa: ARG001 (the shape of a condition)
    """Refuses sources of which normalisation would leave next to nothing."""
    if source.width < NARROWEST:
        return f"normalising {source.width} features leaves next to nothing; it needs {NARROWEST}"
    return None


@blueprint("ffn", pairs=SAME_KIND, condition=wide_enough_to_normalise)
def ffn(source: Port, target: Port, *, ratio: float = 4.0, hidden: int = 0) -> nn.Module:
    """Layer norm, a wide layer of smooth units: a function of directions, blind to scale.

    ``hidden`` units, or (0) ``ratio`` times the geometric mean of both widths.
    """
    width = inner_width(source, target, ratio=ratio, absolute=hidden)
    return chain(
        resampler(law(lengths_of(source), lengths_of(target))),
        width_norm(source.kind, source.width),
        pointwise(source.kind, source.width, width),
        nn.GELU(),
        zeroed(pointwise(target.kind, width, target.width)),
    )
