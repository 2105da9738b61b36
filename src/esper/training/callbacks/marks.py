"""What is marked of growth in the curves of a run: a line of text where something changed, and figures."""

from __future__ import annotations

import msgspec

from esper.events import AnyEvent
from esper.training.verdict import told

# By field of an event: what the figure is called.
FIGURES = {
    "total_params": "growth/params",
    "total_macs": "growth/macs",
    "gain": "growth/gain",
    "price": "growth/price",
}
TEXT = "growth/changes"


def figures_of(event: AnyEvent) -> dict[str, float]:
    """The sizes that an event ends with, and the gain and the price of a judgement."""
    fields = msgspec.structs.asdict(event)
    return {name: float(fields[field]) for field, name in FIGURES.items() if field in fields}


def text_of(event: AnyEvent) -> str | None:
    """What the event did to the network, in one line; ``None`` when it did nothing to it."""
    return told(event)
