"""``gru``: a recurrent reader of a sequence or a signal (Cho et al. 2014, arXiv:1406.1078)."""

from __future__ import annotations

from torch import Tensor, nn

from esper.blueprints.catalogue import blueprint
from esper.blueprints.layers import traced, zeroed
from esper.blueprints.lengths import lengths_of
from esper.blueprints.sizes import inner_width
from esper.surgery.site import Port


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
    if lengths_of(source) == (1,):
        return "a single position has no order to read"
    return None


@blueprint(
    "gru",
    pairs=[("sequence", "sequence"), ("sequence", "vector"), ("signal", "vector")],
    condition=_long_enough,
)
def gru(source: Port, target: Port, *, hidden: int = 0, ratio: float = 1.0) -> nn.Module:
    """A recurrent reader: order and counts over long stretches; never looks ahead.

    ``hidden`` units, or (0) ``ratio`` times the geometric mean of both widths.
    """
    width = inner_width(source, target, ratio=ratio, absolute=hidden)
    head = zeroed(nn.Linear(width, target.width))
    recurrent = nn.GRU(source.width, width, batch_first=source.batch_dim == 0)
    last, channels_first = target.kind == "vector", source.kind == "signal"
    return traced(_Reader(recurrent, head, channels_first=channels_first, last=last))
