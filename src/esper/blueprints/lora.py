"""``lora``: a linear map of low rank (Hu et al. 2021, arXiv:2106.09685), which can melt into a layer beside it."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import nn

from esper.blueprints.catalogue import SAME_KIND, blueprint
from esper.blueprints.layers import chain, pointwise, zeroed
from esper.blueprints.lengths import Law, law, lengths_of, resampler
from esper.errors import RecipeError
from esper.surgery.site import Port

CONVOLUTIONS: dict[str, Any] = {"signal": nn.Conv1d, "image": nn.Conv2d}


@blueprint("lora", pairs=SAME_KIND)
def lora(source: Port, target: Port, *, rank: int = 4, kernel: int = 1) -> nn.Module:
    """A linear map of low rank: moves a layer's own weights in a few directions.

    ``rank`` directions; over signals and images they are read by a convolution of that odd ``kernel``, with the
    stride that the site's lengths ask for.
    """
    if rank < 1 or kernel < 1 or kernel % 2 == 0:
        raise RecipeError(f"rank must be positive and kernel odd, not {rank} and {kernel}")
    lengths = law(lengths_of(source), lengths_of(target))
    return chain(
        *_directions(source, rank, kernel, lengths),
        zeroed(pointwise(target.kind, rank, target.width, bias=False)),
    )


def _directions(source: Port, rank: int, kernel: int, lengths: Law) -> tuple[nn.Module | None, ...]:
    """From the source to ``rank`` directions at the target's lengths, by strides where those explain them."""
    if source.kind not in CONVOLUTIONS:
        return (pointwise(source.kind, source.width, rank, bias=False),)
    convolution = partial(CONVOLUTIONS[source.kind], source.width, rank, kernel, bias=False)
    if lengths.rule == "ceil":
        return (convolution(stride=lengths.amounts, padding=kernel // 2),)
    if lengths.rule == "trim" and min(lengths.amounts) >= kernel - 1:
        rest = Law("trim", tuple(amount - (kernel - 1) for amount in lengths.amounts))
        return resampler(rest) if any(rest.amounts) else None, convolution()
    return resampler(lengths), convolution(padding=kernel // 2)
