"""The spans across a call are found without a look at all of them, and are the same ones."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor, nn

from esper.surgery.dependence import edges_of, is_stream
from esper.surgery.spans import Crossings, crosses, spans_among
from esper.surgery.trace import trace
from hosts import HOSTS, Host, vectors


class Nested(nn.Module):
    """Norms inside the end of a span, and around its beginning."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 3), nn.Sequential(nn.LayerNorm(3), nn.Linear(3, 3))
        self.block = nn.Sequential(nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3)), nn.Linear(3, 3))

    def forward(self, x: Tensor) -> Tensor:
        """``(B, 3)`` to ``(B, 3)``."""
        y = self.block(self.second(self.first(x)))
        out: Tensor = y + self.first(y)
        return out


NESTED = Host("nested", Nested, vectors(3), lambda model, inputs: model(*inputs))


@pytest.mark.parametrize("reach", [1, 2])
@pytest.mark.parametrize("kind", [*HOSTS, NESTED], ids=lambda kind: kind.name)
def test_every_span_across_a_call_is_found_in_order(kind: Host, reach: int) -> None:
    model = kind.make(0)
    seen = trace(model, partial(kind.forward, model, kind.batch(0)[0]))
    spans = spans_among(seen.calls, reach=reach)
    crossings = Crossings(seen, spans)
    for calls in seen.by_module.values():
        wanted = [n for n, span in enumerate(spans) if any(crosses(span, call) for call in calls)]
        assert list(crossings.across(calls)) == wanted


def test_what_was_there_before_its_source_makes_nothing_a_stream() -> None:
    x = torch.ones(2, requires_grad=True) * 1
    first = x + x.exp()
    source = first.exp()
    late = torch.relu(first + source)
    assert is_stream(edges_of([late]), edges_of([source]))
    assert is_stream(edges_of([late]), edges_of([first]))
    assert is_stream(edges_of([late + 1]), edges_of([x]))
    assert not is_stream(edges_of([source]), edges_of([first]))
    assert not is_stream(edges_of([first]), edges_of([source]))
    assert not is_stream(edges_of([late]), set())
