"""``gru``: a recurrent reader of a sequence, a signal, or features (Cho et al. 2014, arXiv:1406.1078)."""

from __future__ import annotations

import math

from torch import Tensor, nn

from esper.blueprints.catalogue import blueprint
from esper.blueprints.layers import chain, traced, zeroed
from esper.blueprints.lengths import lengths_of
from esper.blueprints.sizes import inner_width
from esper.surgery.site import Port

FEWEST_FEATURES = 4
MOST_CHUNKS = 16


class _Reader(nn.Module):
    """Reads along ``time_dim``; gives every state, or the last one, through a linear head."""

    def __init__(self, recurrent: nn.GRU, head: nn.Linear, *, channels_first: bool, last: bool) -> None:
        super().__init__()
        self.recurrent = recurrent
        self.head = head
        self.channels_first = channels_first
        self.time_dim = 1 if recurrent.batch_first else 0
        self.last = last

    def forward(self, x: Tensor) -> Tensor:
        states = self.recurrent(x.transpose(1, 2) if self.channels_first else x)[0]
        y: Tensor = self.head(states.select(self.time_dim, -1) if self.last else states)
        return y


def _long_enough(source: Port, target: Port) -> str | None:  # noqa: ARG001 (the shape of a condition)
    if source.kind == "vector" and source.width < FEWEST_FEATURES:
        return f"{source.width} features are too few to read in turn; it needs {FEWEST_FEATURES}"
    if lengths_of(source) == (1,):
        return "a single position has no order to read"
    return None


@blueprint(
    "gru",
    pairs=[("sequence", "sequence"), ("sequence", "vector"), ("signal", "vector"), ("vector", "vector")],
    condition=_long_enough,
)
def gru(source: Port, target: Port, *, hidden: int = 0, ratio: float = 1.0) -> nn.Module:
    """A recurrent reader: order and counts over long stretches; never looks ahead.

    ``hidden`` units, or (0) ``ratio`` times the geometric mean of both widths. A vector is read in at most 16
    chunks of neighbouring features.
    """
    width = inner_width(source, target, ratio=ratio, absolute=hidden)
    head = zeroed(nn.Linear(width, target.width))
    if source.kind == "vector":
        return _over_features(source, width, head)
    recurrent = nn.GRU(source.width, width, batch_first=source.batch_dim == 0)
    last, channels_first = target.kind == "vector", source.kind == "signal"
    return traced(_Reader(recurrent, head, channels_first=channels_first, last=last))


def _over_features(source: Port, width: int, head: nn.Linear) -> nn.Module:
    chunk = math.ceil(source.width / MOST_CHUNKS)
    num_chunks = math.ceil(source.width / chunk)
    missing = num_chunks * chunk - source.width
    return chain(
        nn.ConstantPad1d((0, missing), 0.0) if missing else None,
        nn.Unflatten(1, (num_chunks, chunk)),
        traced(_Reader(nn.GRU(chunk, width, batch_first=True), head, channels_first=False, last=True)),
    )
