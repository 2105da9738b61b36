"""``conv2d``, ``separable2d``, ``dilated2d``: stacks of 3×3 convolutions over an image."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import nn

from esper.blueprints.catalogue import Pairs, blueprint
from esper.blueprints.layers import chain, pointwise, zeroed
from esper.blueprints.lengths import law, lengths_of, resampler
from esper.blueprints.sizes import inner_width
from esper.errors import RecipeError
from esper.surgery.site import Port

NUM_CONVS = 3
MOST_POOLED_POSITIONS = 5
PAIRS: Pairs = (("image", "image"), ("image", "vector"))

Conv = Callable[[int, int, int, int], nn.Module]
"""From channels in, channels out, stride and dilation to a convolution that makes ``ceil(size / stride)``."""


def _dense(num_in: int, num_out: int, stride: int, dilation: int) -> nn.Module:
    return nn.Conv2d(num_in, num_out, 3, stride=stride, padding=dilation, dilation=dilation)


def _separable(num_in: int, num_out: int, stride: int, dilation: int) -> nn.Module:
    depthwise = nn.Conv2d(
        num_in, num_in, 3, stride=stride, padding=dilation, dilation=dilation, groups=num_in, bias=False
    )
    return chain(depthwise, nn.Conv2d(num_in, num_out, 1))


@blueprint("conv2d", pairs=PAIRS)
def conv2d(source: Port, target: Port, *, channels: int = 0, ratio: float = 1.0) -> nn.Module:
    """Three 3×3 convolutions: local patterns wherever they occur in an image.

    ``channels`` each, or (0) ``ratio`` times the geometric mean of both widths.
    """
    width = inner_width(source, target, ratio=ratio, absolute=channels)
    return _stack(source, target, width, _dense, dilation=1)


@blueprint("separable2d", pairs=PAIRS)
def separable2d(source: Port, target: Port, *, channels: int = 0, ratio: float = 1.5) -> nn.Module:
    """Depthwise 3×3, then 1×1, three times: local patterns at a fraction of the multiply-adds.

    ``channels`` each, or (0) ``ratio`` times the geometric mean of both widths.
    """
    width = inner_width(source, target, ratio=ratio, absolute=channels)
    return _stack(source, target, width, _separable, dilation=1)


@blueprint("dilated2d", pairs=PAIRS)
def dilated2d(
    source: Port, target: Port, *, channels: int = 0, ratio: float = 1.0, dilation: int = 2
) -> nn.Module:
    """3×3 convolutions whose taps lie ever further apart: patterns far across an image.

    Dilations 1, ``dilation``, ``dilation`` squared, but never beyond half the image; ``channels`` each,
    or (0) ``ratio`` times the geometric mean of both widths.
    """
    if dilation < 1:
        raise RecipeError(f"dilation must be positive, not {dilation}")
    width = inner_width(source, target, ratio=ratio, absolute=channels)
    return _stack(source, target, width, _dense, dilation=dilation)


def _stack(source: Port, target: Port, channels: int, conv: Conv, *, dilation: int) -> nn.Module:
    """Follows the site's law of lengths; towards a vector, halves the size while it is large, and pools."""
    to_vector = target.kind == "vector"
    resample = None if to_vector else resampler(law(lengths_of(source), lengths_of(target)))
    size = lengths_of(source if to_vector else target)
    num_in, layers = source.width, [resample]
    for number in range(NUM_CONVS):
        stride = 2 if to_vector and max(size) > MOST_POOLED_POSITIONS else 1
        apart = max(1, min(dilation**number, min(size) // 2))
        layers += [conv(num_in, channels, stride, apart), nn.ReLU()]
        num_in, size = channels, tuple(math.ceil(length / stride) for length in size)
    if to_vector:
        return chain(*layers, *_pooled_head(size, channels, target.width))
    return chain(*layers, zeroed(pointwise("image", channels, target.width)))


def _pooled_head(size: tuple[int, ...], channels: int, width: int) -> tuple[nn.Module, ...]:
    grid = tuple(min(length, MOST_POOLED_POSITIONS) for length in size)
    head = zeroed(nn.Linear(channels * math.prod(grid), width))
    return nn.AdaptiveAvgPool2d(grid), nn.Flatten(), head
