"""``conv1d``: a stack of convolutions over a signal, over time, or over the features of a vector."""

from __future__ import annotations

import math

from torch import nn

from esper.blueprints.catalogue import blueprint
from esper.blueprints.layers import chain, pointwise, time_last, zeroed
from esper.blueprints.lengths import law, lengths_of, resampler
from esper.blueprints.sizes import inner_width
from esper.surgery.site import Port

KERNEL = 3
NUM_CONVS = 3
FEWEST_FEATURES = 8
FEATURE_CHANNELS = 25
MOST_FEATURE_POSITIONS = 16
MOST_POOLED_POSITIONS = 5


def _enough_features(source: Port, target: Port) -> str | None:  # noqa: ARG001 (the shape of a condition)
    if source.kind == "vector" and source.width < FEWEST_FEATURES:
        return f"{source.width} features are too few to slide over; it needs {FEWEST_FEATURES}"
    return None


@blueprint(
    "conv1d",
    pairs=[
        ("vector", "vector"),
        ("signal", "signal"),
        ("signal", "vector"),
        ("sequence", "sequence"),
        ("sequence", "vector"),
    ],
    condition=_enough_features,
)
def conv1d(
    source: Port, target: Port, *, channels: int = 0, ratio: float = 1.0, causal: bool = True
) -> nn.Module:
    """Three convolutions: patterns wherever they occur along features, a signal, or time.

    ``channels`` each, or (0) 25 over features and elsewhere ``ratio`` times the geometric mean of both
    widths. From sequence to sequence a ``causal`` body reads no later position; signals are read both ways.
    """
    if source.kind == "vector":
        width = inner_width(source, target, ratio=ratio, absolute=channels or FEATURE_CHANNELS)
        return _over_features(source, target, width)
    width = inner_width(source, target, ratio=ratio, absolute=channels)
    if target.kind == "vector":
        body = _to_vector(source, target, width)
    elif source.kind == "signal":
        body = _over_signal(source, target, width)
    else:
        body = _over_time(source, target, width, causal=causal)
    return time_last(body, source, target) if source.kind == "sequence" else body


def _over_features(source: Port, target: Port, channels: int) -> nn.Module:
    """The trunk of the reference network for MNIST-1D: each convolution halves the length."""
    length = source.width
    layers: list[nn.Module] = [nn.Unflatten(1, (1, length))]
    for num_in, kernel in ((1, 5), (channels, KERNEL), (channels, KERNEL)):
        layers += [nn.Conv1d(num_in, channels, kernel, stride=2, padding=1), nn.ReLU()]
        length = (length + 2 - kernel) // 2 + 1
    positions = min(length, MOST_FEATURE_POSITIONS)
    pool = nn.AdaptiveAvgPool1d(positions) if positions < length else None
    head = zeroed(nn.Linear(channels * positions, target.width))
    return chain(*layers, pool, nn.Flatten(), head)


def _to_vector(source: Port, target: Port, channels: int) -> nn.Module:
    """Halves the length while it is long, pools it to a few positions, then a linear map."""
    (length,) = lengths_of(source)
    num_in, layers = source.width, list[nn.Module]()
    for _ in range(NUM_CONVS):
        stride = 2 if length > MOST_POOLED_POSITIONS else 1
        layers += [nn.Conv1d(num_in, channels, KERNEL, stride=stride, padding=1), nn.ReLU()]
        num_in, length = channels, math.ceil(length / stride)
    positions = min(length, MOST_POOLED_POSITIONS)
    head = zeroed(nn.Linear(channels * positions, target.width))
    return chain(*layers, nn.AdaptiveAvgPool1d(positions), nn.Flatten(), head)


def _over_signal(source: Port, target: Port, channels: int) -> nn.Module:
    """Keeps the length, or follows the site's law after the first convolution."""
    first = nn.Conv1d(source.width, channels, 5, padding=2)
    second = nn.Conv1d(channels, channels, KERNEL, padding=1)
    third = nn.Conv1d(channels, channels, KERNEL, padding=1)
    resample = resampler(law(lengths_of(source), lengths_of(target)))
    head = zeroed(pointwise("signal", channels, target.width))
    return chain(first, nn.ReLU(), resample, second, nn.ReLU(), third, nn.ReLU(), head)


def _over_time(source: Port, target: Port, channels: int, *, causal: bool) -> nn.Module:
    num_in, layers = source.width, list[nn.Module]()
    for _ in range(NUM_CONVS):
        sides = (KERNEL - 1, 0) if causal else (KERNEL // 2, KERNEL // 2)
        layers += [nn.ConstantPad1d(sides, 0.0), nn.Conv1d(num_in, channels, KERNEL), nn.ReLU()]
        num_in = channels
    return chain(*layers, zeroed(pointwise("signal", channels, target.width)))
