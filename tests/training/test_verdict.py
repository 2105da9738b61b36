"""What was done to a network, in one line each."""

from __future__ import annotations

import pytest

from esper import events
from esper.training.verdict import told

COST = {"increase": 0.0012, "upper": 0.004, "margin": 0.005, "total_params": 7_000, "total_macs": 6_900}


def pruned(what: str, where: str, removed: int = 1, units: int = 1) -> events.Pruned:
    return events.Pruned(
        step=700, what=what, where=where, num_removed=removed, num_units=units, params=1_200, **COST
    )


@pytest.mark.parametrize(
    ("event", "words"),
    [
        (pruned("units", "fc1", 12, 64), "pruned 12 of 64 units of fc1: −1,200 parameters"),
        (pruned("heads", "q and k and v", 1, 4), "pruned 1 of 4 heads of q and k and v: −1,200 parameters"),
        (pruned("graft", "fc1 mlp(ratio=2.0)"), "pruned the graft fc1 mlp(ratio=2.0): −1,200 parameters"),
        (pruned("branch", "blocks.1"), "pruned the branch blocks.1: −1,200 parameters"),
    ],
    ids=lambda value: value.what if isinstance(value, events.Pruned) else "",
)
def test_what_was_pruned_is_told_with_its_cost_and_the_margin(event: events.Pruned, words: str) -> None:
    assert told(event) == f"step 700: {words} (held-out loss +0.0012, margin 0.005)"


def test_a_graft_that_melted_is_told() -> None:
    event = events.Merged(step=900, candidate="fc1 lora(rank=4)", params=80, total_params=900, total_macs=800)
    assert told(event) == "step 900: fc1 lora(rank=4) melted into the layer beside it (−80 parameters)"


def test_the_end_of_growth_in_plain_layers_is_told() -> None:
    event = events.Folded(step=1_500, total_params=9_400, num_grafts=1)
    assert told(event) == "step 1,500: folded into plain PyTorch, 9,400 parameters"
