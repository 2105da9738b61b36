"""``gated``: products of linear features (SwiGLU, Shazeer 2020, arXiv:2002.05202, equation 6)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from esper.blueprints.catalogue import SAME_KIND, blueprint
from esper.blueprints.layers import chain, pointwise, traced, zeroed
from esper.blueprints.lengths import law, lengths_of, resampler
from esper.blueprints.sizes import inner_width
from esper.surgery.site import Port


class _Gated(nn.Module):
    """``project(silu(a) * b)``, where ``a`` and ``b`` are the two halves of one linear map of ``x``."""

    def __init__(self, source: Port, target: Port, width: int) -> None:
        super().__init__()
        self.both = pointwise(source.kind, source.width, 2 * width)
        self.project = zeroed(pointwise(target.kind, width, target.width))
        self.dim = 1 if source.kind in ("signal", "image") else -1

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.both(x).chunk(2, dim=self.dim)
        y: Tensor = self.project(F.silu(gate) * value)
        return y


@blueprint("gated", pairs=SAME_KIND)
def gated(source: Port, target: Port, *, ratio: float = 1.0, hidden: int = 0) -> nn.Module:
    """One linear map of the features gates another: products, comparisons, switches.

    ``hidden`` products, or (0) ``ratio`` times the geometric mean of both widths.
    """
    width = inner_width(source, target, ratio=ratio, absolute=hidden)
    body = traced(_Gated(source, target, width))
    resample = resampler(law(lengths_of(source), lengths_of(target)))
    return body if resample is None else chain(resample, body)
