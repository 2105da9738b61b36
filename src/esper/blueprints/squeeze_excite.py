"""``squeeze_excite``: channels weighted by the whole example (Hu et al. 2018, arXiv:1709.01507)."""

from __future__ import annotations

from torch import Tensor, nn

from esper.blueprints.catalogue import blueprint
from esper.blueprints.layers import chain, pointwise, traced, zeroed
from esper.blueprints.lengths import law, lengths_of, resampler
from esper.errors import RecipeError
from esper.surgery.site import Port

FEWEST_UNITS = 8


class _Excite(nn.Module):
    """``value(x) * gate(mean of x over its positions)``; the mean at time t sees no later time if ``causal``.

    The gate is linear, not a sigmoid: added to the host, ``y + y * gate`` rescales each channel around one.
    """

    def __init__(
        self, value: nn.Module | None, gate: nn.Module, *, dims: tuple[int, ...], causal: bool
    ) -> None:
        super().__init__()
        self.value = value
        self.gate = gate
        self.dims = dims
        self.causal = causal

    def forward(self, x: Tensor) -> Tensor:
        gate: Tensor = self.gate(self._mean_so_far(x) if self.causal else x.mean(self.dims, keepdim=True))
        return (x if self.value is None else self.value(x)) * gate

    def _mean_so_far(self, x: Tensor) -> Tensor:
        count = x.new_ones(()).expand_as(x[..., :1]).cumsum(self.dims[0])
        return x.cumsum(self.dims[0]) / count


@blueprint("squeeze_excite", pairs=[("image", "image"), ("signal", "signal"), ("sequence", "sequence")])
def squeeze_excite(source: Port, target: Port, *, ratio: float = 0.5, causal: bool = True) -> nn.Module:
    """A gate per channel from the mean over all positions: the whole example decides what counts here.

    The gate has ``ratio`` times the source's width of hidden units, at least 8. From sequence to sequence a
    ``causal`` gate reads no later position.
    """
    if ratio <= 0:
        raise RecipeError(f"ratio must be positive, not {ratio}")
    width = max(FEWEST_UNITS, round(ratio * source.width))
    gate = chain(
        pointwise(source.kind, source.width, width),
        nn.ReLU(),
        zeroed(pointwise(target.kind, width, target.width)),
    )
    over_time = source.kind == "sequence"
    dims = (1 - source.batch_dim,) if over_time else tuple(range(2, 2 + len(lengths_of(source))))
    return traced(_Excite(_value(source, target), gate, dims=dims, causal=causal and over_time))


def _value(source: Port, target: Port) -> nn.Module | None:
    """What the gate multiplies: the source as it is, resampled and mixed only where the target differs."""
    resample = resampler(law(lengths_of(source), lengths_of(target)))
    same = source.width == target.width
    mix = None if same else pointwise(source.kind, source.width, target.width, bias=False)
    return None if resample is None and mix is None else chain(resample, mix)
