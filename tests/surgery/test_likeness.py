"""Modules that are built alike are read once; whatever can make a difference makes one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from esper.surgery import fold, forward_graph
from esper.surgery.blocks import find_blocks
from esper.surgery.likeness import Alike, likeness
from esper.surgery.sites import discover
from esper.surgery.trace import trace


class Residual(nn.Module):
    """A block of one's own; one that is ``kept`` gives the units away, too."""

    def __init__(self, *, kept: bool = False, width: int = 3) -> None:
        super().__init__()
        self.up, self.down, self.kept = nn.Linear(3, width), nn.Linear(width, 3), kept
        self.register_buffer("scale", torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        """``(B, 3)`` to ``(B, 3)``."""
        units = torch.relu(self.up(x))
        out: Tensor = x + self.scale * self.down(units)
        return out + units if self.kept else out


def tied() -> nn.Module:
    module = Residual()
    module.down.weight = module.up.weight
    return module


def changed(change: Callable[[Residual], Any]) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        module = Residual()
        change(module)
        return module

    return make


OTHERS = {
    "an attribute": lambda: Residual(kept=True),
    "a shape": lambda: Residual(width=4),
    "a tied weight": tied,
    "a class": changed(lambda m: setattr(m, "up", nn.Identity())),
    "a name": changed(lambda m: m.add_module("other", nn.Identity())),
    "a mode": changed(lambda m: m.up.eval()),
    "a missing bias": changed(lambda m: setattr(m.up, "bias", None)),
    "a frozen weight": changed(lambda m: m.up.requires_grad_(False)),
    "a dtype": changed(lambda m: m.up.double()),
    "an object": changed(lambda m: setattr(m, "table", [])),
    "a truth that is a number": changed(lambda m: setattr(m, "kept", 0)),
    "a nested value": changed(lambda m: setattr(m, "kept", (False,))),
}
UNKNOWN = {
    "a hook": changed(lambda m: m.up.register_forward_hook(lambda *_: None)),
    "a hook before": changed(lambda m: m.register_forward_pre_hook(lambda *_: None)),
    "a forward of its own": changed(lambda m: setattr(m.up, "forward", m.up.forward)),
}


def test_modules_that_differ_in_values_only_are_alike() -> None:
    first, second = Residual(), Residual()
    assert not torch.equal(first.up.weight, second.up.weight)
    assert likeness(first) == likeness(second) is not None


@pytest.mark.parametrize("make", OTHERS.values(), ids=OTHERS)
def test_modules_that_differ_otherwise_are_not(make: Callable[[], nn.Module]) -> None:
    assert likeness(make()) != likeness(Residual())
    assert likeness(make()) is not None


@pytest.mark.parametrize("make", UNKNOWN.values(), ids=UNKNOWN)
def test_of_what_can_do_anything_it_is_not_known(make: Callable[[], nn.Module]) -> None:
    assert likeness(make()) is None


def test_what_was_found_for_one_holds_for_those_alike_and_the_same_names_only() -> None:
    asked: list[tuple[nn.Module, list[str]]] = []
    known = Alike(lambda module, names: asked.append((module, names)) or len(asked))
    first, second, other, hooked = Residual(), Residual(), Residual(kept=True), UNKNOWN["a hook"]()
    assert [known(first, ["up"]), known(second, {"up"}), known(second, ["up", "down"])] == [1, 1, 2]
    assert [known(other, ["up"]), known(hooked, ["up"]), known(hooked, ["up"])] == [3, 4, 5]
    assert asked == [
        (first, ["up"]),
        (second, ["down", "up"]),
        (other, ["up"]),
        (hooked, ["up"]),
        (hooked, ["up"]),
    ]


def test_a_long_network_is_traced_no_more_often_than_a_short_one_and_its_odd_block_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    traced: list[nn.Module] = []
    trace_it = forward_graph._traced

    def counted(module: nn.Module, *args: Any) -> Any:
        traced.append(module)
        return trace_it(module, *args)

    monkeypatch.setattr(forward_graph, "_traced", counted)
    numbers = []
    for length in (3, 12):
        traced.clear()
        blocks = [Residual(kept=number == 1) for number in range(length)]
        net = nn.Sequential(*blocks)
        seen = trace(net, lambda net=net: net(torch.randn(2, 3)))
        spans = [site for site in discover(seen).offers if site.is_span]
        blocked = fold.obstacles(seen, spans)
        found = find_blocks(seen, spans, blocked=blocked).found
        assert list(found) == [f"{n}.up..{n}.down" for n in range(length) if n != 1]
        numbers.append(len([module for module in traced if module is not net]))
    assert numbers[0] == numbers[1] > 0
