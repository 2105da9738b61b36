"""What is read from the passes that run anyway is what autograd says, on every host; and nothing stays behind."""

from __future__ import annotations

import copy
import gc
import pickle
from collections.abc import Callable, Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._dynamo import eval_frame
from torch.utils.checkpoint import checkpoint

from esper.surgery.capture import MAX_PASSES, Capture, Pair
from esper.surgery.site import Port, Site
from esper.surgery.structure import first_input, first_output, with_first_output
from hosts import HOSTS, Host, host
from surgery.places import PLACES, Place, sites

PORT = Port("vector", (4,))
EVERY_HOST = pytest.mark.parametrize("host", HOSTS, ids=lambda host: host.name)


@pytest.fixture(autouse=True)
def _stance() -> Iterator[None]:
    """Most tests here let an armed capture go; none leaves torch in eager mode."""
    if held_in_eager_mode():
        gc.collect()  # by captures of other tests
    yield
    assert not held_in_eager_mode()


def held_in_eager_mode() -> bool:
    return eval_frame._stance.stance == "force_eager"


def hooks(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def true_gradients(host: Host, place: Site) -> tuple[list[Tensor], list[Tensor]]:
    """For each call of the exit: its output, and the loss's gradient by a zero added to that output."""
    model, values, zeros = host.make(0), [], []

    def add_zero(_: nn.Module, __: object, output: object) -> object:
        z = first_output(output)
        assert z is not None
        values.append(z.detach().clone())
        zeros.append(torch.zeros_like(z, requires_grad=True))
        return with_first_output(output, z + zeros[-1])

    model.get_submodule(place.exit).register_forward_hook(add_zero)
    torch.default_generator.manual_seed(0)
    loss = host.loss(model, host.batch(0))
    return values, list(torch.autograd.grad(loss, zeros))


def read(host: Host, site: Site) -> list[Pair]:
    model = host.make(0)
    capture = Capture(model, [site], outputs=True)
    capture.arm()
    torch.default_generator.manual_seed(0)
    host.loss(model, host.batch(0)).backward()
    return capture.take()[site.name]


@pytest.mark.parametrize("place", [p for p in PLACES if p.host.name != "checkpointed"], ids=str)
def test_gradients_and_outputs_are_those_of_autograd_for_every_call(place: Place) -> None:
    pairs = read(place.host, place.site)
    values, gradients = true_gradients(place.host, place.site)
    assert len(pairs) == len(gradients)
    assert any(bool((gradient != 0).any()) for gradient in gradients)
    for pair, value, gradient in zip(pairs, reversed(values), reversed(gradients), strict=True):
        assert torch.equal(pair.z, value)
        torch.testing.assert_close(pair.g, gradient)
    assert not any(tensor.requires_grad for pair in pairs for tensor in pair)


@pytest.mark.parametrize("place", [p for p in PLACES if p.host.name != "checkpointed"], ids=str)
def test_inputs_are_those_that_the_graft_would_read(place: Place) -> None:
    site, model = place.site, place.host.make(0)
    seen: list[Tensor | None] = []

    def keep(_: nn.Module, args: tuple[object, ...], kwargs: dict[str, object]) -> None:
        x = first_input(args, kwargs)
        seen.append(None if x is None else x.detach().clone())

    model.get_submodule(site.entry).register_forward_pre_hook(keep, with_kwargs=True)
    torch.default_generator.manual_seed(0)
    place.host.loss(model, place.host.batch(0))
    pairs = read(place.host, site)
    for pair, x in zip(pairs, reversed(seen), strict=True):
        expected = pair.z if site.attachment == "after" else x
        assert expected is not None
        assert torch.equal(pair.x, expected)


@EVERY_HOST
def test_reading_changes_no_gradient_and_leaves_no_hook(host: Host) -> None:
    plain, watched = host.make(0), host.make(0)
    capture = Capture(watched, sites(host))
    assert (hooks(watched), capture.armed) == (hooks(plain), False)
    capture.arm()
    capture.arm()
    assert capture.armed
    for model in (plain, watched):
        torch.default_generator.manual_seed(0)
        host.loss(model, host.batch(0)).backward()
    for one, other in zip(plain.parameters(), watched.parameters(), strict=True):
        assert (one.grad is None) == (other.grad is None)
        assert one.grad is None or torch.equal(one.grad, other.grad)
    assert set(capture.take()) == {site.name for site in sites(host)}
    capture.disarm()
    capture.disarm()
    assert (hooks(watched), capture.armed) == (hooks(plain), False)
    host.loss(watched, host.batch(0)).backward()
    assert capture.take() == {}


def test_several_backward_passes_give_several_pairs_in_order() -> None:
    mlp = host("mlp")
    model, site = mlp.make(0), sites(mlp)[0]
    capture = Capture(model, [site])
    capture.arm()
    for seed in range(3):
        mlp.loss(model, mlp.batch(seed)).backward()
    pairs = capture.take()[site.name]
    assert [torch.equal(pair.x, mlp.batch(seed)[0][0]) for seed, pair in enumerate(pairs)] == [True] * 3
    assert capture.take() == {}


def test_only_the_latest_passes_are_kept() -> None:
    mlp = host("mlp")
    model, site = mlp.make(0), sites(mlp)[0]
    capture = Capture(model, [site])
    capture.arm()
    for seed in range(MAX_PASSES + 2):
        mlp.loss(model, mlp.batch(seed)).backward()
    pairs = capture.take()[site.name]
    assert len(pairs) == MAX_PASSES
    assert torch.equal(pairs[0].x, mlp.batch(2)[0][0])
    assert torch.equal(pairs[-1].x, mlp.batch(MAX_PASSES + 1)[0][0])


@pytest.mark.parametrize("name", ["0", "0..4", "2+"])
def test_passes_without_a_gradient_in_between_are_not_mixed_in(name: str) -> None:
    mlp = host("mlp")
    model, site = mlp.make(0), next(site for site in sites(mlp) if site.name == name)
    capture = Capture(model, [site], outputs=True)
    capture.arm()
    waiting = mlp.loss(model, mlp.batch(0))
    with torch.no_grad():
        mlp.loss(model, mlp.batch(1))
    mlp.loss(model, mlp.batch(2))
    waiting.backward()
    (pair,) = capture.take()[site.name]
    expected = mlp.batch(0)[0][0] if site.entry == "0" else pair.z
    assert torch.equal(pair.x, expected)


def test_two_losses_in_flight_keep_their_own_inputs() -> None:
    mlp = host("mlp")
    model, span = mlp.make(0), next(site for site in sites(mlp) if site.is_span)
    capture = Capture(model, [span])
    capture.arm()
    first, second = (mlp.loss(model, mlp.batch(seed)) for seed in (0, 1))
    second.backward()
    first.backward()
    pairs = capture.take()[span.name]
    assert [torch.equal(pair.x, mlp.batch(seed)[0][0]) for seed, pair in zip((1, 0), pairs, strict=True)] == [
        True
    ] * 2


def test_a_span_whose_entry_was_not_called_gives_no_pair_and_no_other_pass_input() -> None:
    mlp = host("mlp")
    model, span = mlp.make(0), next(site for site in sites(mlp) if site.name == "0..2")
    capture = Capture(model, [span])
    capture.arm()
    mlp.loss(model, mlp.batch(0)).backward()
    assert len(capture.take()[span.name]) == 1
    model[2](torch.randn(3, 16)).sum().backward()
    assert capture.take() == {}


class Shift(nn.Module):
    """Adds a parameter; its gradient needs no input."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((4,), 0.5))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.weight


class Writes(nn.Module):
    """Overwrites the outputs of its layers, and the input of the first, in place."""

    def __init__(self) -> None:
        super().__init__()
        self.one = Shift()
        self.two = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.one(x).relu_()
        out = self.two(hidden)
        x.zero_()
        return out.mul_(3.0)


def test_a_borrowed_input_is_the_models_own_and_where_it_is_written_into_there_is_no_pair() -> None:
    model = Writes()
    one, two = (Site(name, PORT, PORT) for name in ("one", "two"))
    capture = Capture(model, [one, two], borrow=["one", "two"])
    capture.arm()
    x = torch.randn(3, 4)
    seen: list[Tensor] = []
    model.two.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    model(x).sum().backward()
    ((name, (pair,)),) = capture.take().items()
    assert (name, capture.spoilt) == ("two", {"one"})
    assert pair.x.data_ptr() == seen[0].data_ptr()
    assert not pair.x.requires_grad


@pytest.mark.parametrize("entry", ["one", "two"])
def test_values_are_those_before_anything_wrote_over_them(entry: str) -> None:
    model, x = Writes(), torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    hidden = F.relu(model.one(x))
    z = model.two(hidden)
    site = Site("two", PORT, PORT, entry)
    capture = Capture(model, [site], outputs=True)
    capture.arm()
    given = x.clone()
    model(given).sum().backward()
    (pair,) = capture.take()[site.name]
    assert torch.equal(pair.z, z)
    assert torch.equal(pair.x, x if entry == "one" else hidden)
    assert torch.equal(pair.g, torch.full((5, 4), 3.0))


@pytest.mark.parametrize("place", [p for p in PLACES if p.host.name == "checkpointed"], ids=str)
def test_checkpointing_gives_one_pair_for_each_gradient(place: Place) -> None:
    site = place.site
    (pair,) = read(place.host, site)
    plain = Host("plain", Unchecked, place.host.draw, place.host.forward)
    values, gradients = true_gradients(plain, site)
    assert torch.equal(pair.z, values[0])
    torch.testing.assert_close(pair.g, gradients[0])
    (other,) = read(plain, site)
    assert torch.equal(pair.x, other.x)


class Unchecked(nn.Module):
    """The zoo's checkpointed host without checkpointing; the same weights for the same seed."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(6, 12)
        self.part = nn.Sequential(nn.Linear(12, 12), nn.ReLU(), nn.Dropout(0.2), nn.Linear(12, 12))
        self.head = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.part(torch.relu(self.inner(x))))


def test_a_graph_that_is_used_twice_gives_a_pair_for_each_use() -> None:
    mlp = host("mlp")
    model, site = mlp.make(0), sites(mlp)[0]
    capture = Capture(model, [site])
    capture.arm()
    loss = mlp.loss(model, mlp.batch(0))
    loss.backward(retain_graph=True)
    (2.0 * loss).backward()
    one, other = capture.take()[site.name]
    torch.testing.assert_close(other.g, 2.0 * one.g)


def test_frozen_parts_and_integer_outputs_give_nothing() -> None:
    mlp = host("mlp")
    model = mlp.make(0)
    model[0].requires_grad_(False)
    capture = Capture(model, sites(mlp))
    capture.arm()
    mlp.loss(model, mlp.batch(0)).backward()
    pairs = capture.take()
    assert "0" not in pairs
    assert {"2", "4", "0..2", "0..4"} <= set(pairs)


class Reentrant(nn.Module):
    """Old-style checkpointing: the first pass has no gradient, the second one has."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Linear(4, 4)
        self.two = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = checkpoint(self.two, self.one(x), use_reentrant=True)
        return out


def test_reentrant_checkpointing_gives_one_pair() -> None:
    model, site = Reentrant(), Site("two", PORT, PORT)
    capture = Capture(model, [site])
    capture.arm()
    model(torch.randn(5, 4)).sum().backward()
    (pair,) = capture.take()["two"]
    assert torch.equal(pair.g, torch.ones(5, 4))


def test_hooks_that_were_there_stay() -> None:
    mlp = host("mlp")
    model, calls = mlp.make(0), []
    model[0].register_forward_hook(lambda *_: calls.append(1))
    capture = Capture(model, sites(mlp))
    capture.arm()
    capture.disarm()
    mlp.loss(model, mlp.batch(0))
    assert calls == [1]
    assert hooks(model) == 1


@pytest.mark.parametrize("first", [0, 1])
def test_torch_is_held_in_eager_mode_until_the_last_of_several_captures_is_disarmed(first: int) -> None:
    mlp = host("mlp")
    captures = [Capture(mlp.make(0), sites(mlp)) for _ in range(2)]
    for capture in (*captures, captures[0]):
        capture.arm()
    captures[first].disarm()
    captures[first].disarm()
    assert held_in_eager_mode()
    captures[1 - first].disarm()
    assert not held_in_eager_mode()
    captures[0].arm()
    assert held_in_eager_mode()


def test_a_capture_that_nobody_holds_leaves_neither_hooks_nor_torch_in_eager_mode() -> None:
    mlp = host("mlp")
    model = mlp.make(0)
    capture = Capture(model, sites(mlp))
    capture.arm()
    loss = mlp.loss(model, mlp.batch(0))
    del capture
    gc.collect()
    assert hooks(model) == 0
    assert not held_in_eager_mode()
    loss.backward()


@pytest.mark.parametrize("again", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_of_a_model_that_is_read_is_not_read(again: Callable[[nn.Module], nn.Module]) -> None:
    mlp = host("mlp")
    model = mlp.make(0)
    capture = Capture(model, sites(mlp))
    capture.arm()
    mlp.loss(again(model), mlp.batch(0)).backward()
    assert capture.take() == {}
    mlp.loss(model, mlp.batch(0)).backward()
    assert capture.take()


def test_torch_is_held_in_eager_mode_only_while_armed() -> None:
    mlp = host("mlp")
    model, frames = mlp.make(0), []

    def counting(graph: torch.fx.GraphModule, _: object) -> object:
        frames.append(graph)
        return graph.forward

    compiled = torch.compile(model, backend=counting)
    x = mlp.batch(0)[0][0]
    compiled(x)
    capture = Capture(model, [sites(mlp)[0]])
    capture.arm()
    compiled(x).sum().backward()
    assert len(capture.take()["0"]) == 1
    capture.disarm()
    compiled(x).sum().backward()
    assert capture.take() == {}
    assert len(frames) == 1
    torch.compile(lambda x: x + 1, backend=counting)(x)
    assert len(frames) == 2
