"""What is asked of a model costs the memory of a batch or two, and is scaled as the user's own passes are."""

from __future__ import annotations

import weakref
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from esper import Recipe, held_out
from esper.blueprints.catalogue import build
from esper.growth.contender import Contender
from esper.growth.host import Host
from esper.growth.training import Training
from esper.surgery.capture import MAX_PASSES
from esper.surgery.graft import Graft
from esper.surgery.site import Port, Site

NUM_BATCHES = MAX_PASSES + 3
VECTOR = Port("vector", (3,))


class Graphs:
    """Held-out losses that count the graphs alive when a batch begins."""

    def __init__(self) -> None:
        self._alive: list[weakref.ref[Tensor]] = []
        self.counts: list[int] = []

    def __call__(self, model: nn.Module, batch: Tensor) -> Tensor:
        self.counts.append(sum(ref() is not None for ref in self._alive))
        output = model(batch)
        if output.requires_grad:
            kept = output * 1.0
            self._alive.append(weakref.ref(kept))
            return (kept * kept).sum(1)
        return (output * output).sum(1)


def asked() -> tuple[Host, Graphs]:
    torch.manual_seed(0)
    model, graphs = nn.Linear(3, 2), Graphs()
    batches = [torch.randn(4, 3) for _ in range(NUM_BATCHES)]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    return Host(Training(model, optimizer), held_out(batches, per_example=graphs)), graphs


@pytest.mark.parametrize(
    "ask", [Host.examine, lambda host: host.evaluate(host.model)], ids=["examine", "evaluate"]
)
def test_graphs_of_held_out_batches_do_not_pile_up(ask: Callable[[Host], object]) -> None:
    host, graphs = asked()
    ask(host)
    assert len(graphs.counts) == NUM_BATCHES
    assert max(graphs.counts) <= 1


def test_the_first_look_finds_gradients_and_the_losses_of_every_batch() -> None:
    host, _ = asked()
    found = host.examine()
    assert host.differentiable
    assert found.tolist() == host.losses().tolist()
    assert len(found) == 4 * NUM_BATCHES


def test_gradients_are_taken_of_as_many_batches_as_are_kept() -> None:
    host, graphs = asked()
    host.examine()
    graphs.counts.clear()
    site = Site("", Port("vector", (3,)), Port("vector", (2,)))
    shown: list[str] = []
    host.show([site], lambda name, _: shown.append(name))
    assert shown == [site.name] * MAX_PASSES
    assert len(graphs.counts) == MAX_PASSES


class Shift(nn.Module):
    """Adds a parameter; its gradient needs no input."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((3,), 0.5))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.weight


class Writes(nn.Module):
    """Writes into the input of its first layer before the second one runs."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = Shift(), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        given = x.clone()
        hidden = self.one(given)
        given.zero_()
        out: Tensor = self.two(torch.tanh(hidden))
        return out


def test_inputs_are_shown_as_they_were_read_where_the_model_writes_into_them_too() -> None:
    torch.manual_seed(0)
    model, calls = Writes(), []
    batches = [torch.randn(4, 3) for _ in range(3)]

    def per_example(model: nn.Module, batch: Tensor) -> Tensor:
        calls.append(batch)
        return model(batch).square().sum(1)

    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    host = Host(Training(model, optimizer), held_out(batches, per_example=per_example))
    host.examine()
    sites = [Site("one", VECTOR, VECTOR), Site("two", VECTOR, Port("vector", (2,)))]
    for num_looks in (2, 1):
        calls.clear()
        shown: dict[str, list[Tensor]] = {"one": [], "two": []}
        host.show(sites, lambda name, pair, to=shown: to[name].append(pair.x))  # type: ignore[misc]
        assert len(calls) == num_looks * len(batches)
        assert all(torch.equal(x, batch) for x, batch in zip(shown["one"], batches, strict=True))
        expected = [torch.tanh(model.one(batch)) for batch in batches]
        assert all(torch.equal(x, other) for x, other in zip(shown["two"], expected, strict=True))


def test_a_look_goes_back_no_further_than_to_what_is_shown() -> None:
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3), nn.Linear(3, 2)), torch.randn(4, 3)
    evaluate = held_out([x], per_example=lambda model, batch: model(batch).square().sum(1))
    host = Host(Training(model, torch.optim.SGD(model.parameters(), lr=0.1)), evaluate)
    host.examine()
    hidden = torch.tanh(model[0](x))
    z = model[2](hidden)
    (expected,) = torch.autograd.grad(model[3](z).square().sum(), z)
    reached: list[str] = []
    for name, parameter in model.named_parameters():
        parameter.register_hook(lambda _, name=name: reached.append(name))  # type: ignore[misc]
    shown = {}
    sites = [Site("2", VECTOR, VECTOR), Site("3", VECTOR, Port("vector", (2,)), "2")]
    host.show(sites, lambda name, pair: shown.update({name: pair}))
    assert reached == []
    assert shown["2"].x.equal(hidden)
    assert shown["2"].g.equal(expected)
    assert len(shown) == 2


def contender_under(init_scale: float) -> tuple[Contender, nn.Module]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    scaler = torch.amp.GradScaler("cpu", init_scale=init_scale)
    site, recipe = Site("0", Port("vector", (3,)), Port("vector", (4,))), Recipe.of("mlp", ratio=1.0)
    host = Host(Training(model, optimizer, (scaler,)), lambda model: model(torch.ones(4, 3)).sum(1))
    return Contender("", [Graft(build(recipe, site, seed=0), site, recipe)], host, optimizer), model


def in_float16(model: nn.Module, factor: float) -> Tensor:
    with torch.autocast("cpu", dtype=torch.float16):
        output = model(torch.ones(4, 3))
    return output.float().sum() * factor


def moved(contender: Contender, closure: Callable[[], Tensor]) -> float:
    before = [p.detach().clone() for p in contender.grafts[0].parameters()]
    contender.step(closure)
    after = contender.grafts[0].parameters()
    return sum(float((p.detach() - b).abs().sum()) for p, b in zip(after, before, strict=True))


def test_trials_under_a_scaler_feel_gradients_that_float16_alone_would_lose() -> None:
    plain, model = contender_under(1.0)
    assert moved(plain, lambda: in_float16(model, 1e-8)) == 0.0
    scaled, model = contender_under(65536.0)
    exact, reference = contender_under(1.0)
    found = moved(scaled, lambda: in_float16(model, 1e-8))
    assert found == pytest.approx(1e-8 * moved(exact, lambda: in_float16(reference, 1.0)), rel=1e-2)


def test_an_overflow_of_the_scaled_gradients_costs_one_step_of_a_trial() -> None:
    contender, model = contender_under(65536.0)
    assert moved(contender, lambda: in_float16(model, 100.0)) == 0.0
    assert contender.failed is None
    assert moved(contender, lambda: in_float16(model, 1e-3)) > 0.0
