"""Pairs of calls between which a span can reach. Does not know what a graft reads or writes."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

from esper.surgery.trace import Call, Trace


def spans_among(calls: Iterable[Call], *, reach: int) -> list[tuple[Call, Call]]:
    """From each call to the next of ``calls`` that its output flows into; with a ``reach`` of 2 also to the one after.

    In the order of the ends. A way around another call does not count: the next is the nearest on the longest way.
    """
    by_order = {call.order: call for call in calls}
    mask = sum(1 << order for order in by_order)
    feeds = {order: _nearest(call, by_order, mask) for order, call in by_order.items()}
    pairs = {
        (start, end)
        for end, nearest in feeds.items()
        for near in nearest
        for start in (near, *(feeds[near] if reach > 1 else ()))
    }
    return [(by_order[start], by_order[end]) for start, end in sorted(pairs, key=lambda pair: pair[::-1])]


class Crossings:
    """Finds the spans across a call without a look at all of them.

    ``spans`` are in the order of their ends. One that crosses a call ends after that has begun, or at a call around it.
    """

    def __init__(self, trace: Trace, spans: Sequence[tuple[Call, Call]]) -> None:
        self._trace, self._spans = trace, spans
        self._ends = [end.order for _, end in spans]

    def across(self, calls: Sequence[Call]) -> Iterator[int]:
        """Numbers of the spans across one of ``calls`` at least, in order; the first are found at once."""
        around = sorted({caller.order for call in calls for caller in self._trace.callers(call)})
        later = bisect_left(self._ends, min(call.order for call in calls))
        numbers = [range(bisect_left(self._ends, n), min(bisect_right(self._ends, n), later)) for n in around]
        for number in chain(*numbers, range(later, len(self._spans))):
            if any(crosses(self._spans[number], call) for call in calls):
                yield number


def crosses(span: tuple[Call, Call], call: Call) -> bool:
    """Whether the call lies between the two ends of a span, or is one of them."""
    entry, exit_ = span
    return (call is entry or call.depends_on(entry)) and (call is exit_ or exit_.depends_on(call))


def _nearest(call: Call, by_order: dict[int, Call], mask: int) -> list[int]:
    """The calls that feed this one and no other that feeds it."""
    found = []
    rest = call.ancestors & mask
    while rest:
        latest = rest.bit_length() - 1
        found.append(latest)
        rest &= ~(by_order[latest].ancestors | 1 << latest)
    return found
