"""Blocks are found where every operation treats each unit alone, and nowhere else."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from esper.blueprints import fits
from esper.errors import SiteError
from esper.recipe import Recipe
from esper.surgery.block import Block
from esper.surgery.blocks import find_blocks
from esper.surgery.isolation import isolated
from esper.surgery.narrow import narrow
from esper.surgery.sites import discover
from esper.surgery.trace import trace
from esper.surgery.unit_axes import Axis, resize, unit_tensors
from surgery.block_hosts import CASES, Case, explored

ALL = [pytest.param(case, id=case.name) for case in CASES]


@pytest.mark.parametrize("case", ALL)
def test_blocks_are_found_from_the_data_flow(case: Case) -> None:
    blocks = [site.block for site in case.sites()]
    found = [(block.producers, block.consumer, block.width) for block in blocks if block is not None]
    assert tuple(found) == case.blocks


@pytest.mark.parametrize("case", ALL)
def test_the_table_of_modules_says_what_widens(case: Case) -> None:
    rows = {row.module: row.note for row in explored(case.make(), case.batch(0))}
    for producers, consumer, width in case.blocks:
        assert all(f"→ {consumer} ({width} units)" in rows[name] for name in producers)


@pytest.mark.parametrize("case", ALL)
def test_a_block_is_plain_data(case: Case) -> None:
    for site in case.sites():
        block = msgspec.convert(msgspec.json.decode(msgspec.json.encode(site.block)), Block)
        assert block == site.block
        assert hash(block) == hash(site.block)


@pytest.mark.parametrize("case", ALL)
def test_a_narrow_copy_goes_from_the_block_s_input_to_its_output(case: Case) -> None:
    for site in case.sites():
        block = site.block
        assert block is not None
        copy = narrow(block, 3 * block.multiple).eval()
        assert copy(torch.randn(site.source.batched(2))).shape == site.target.batched(2)
        assert all(type(part).__module__.startswith("torch.") for part in copy.children())


def test_a_narrow_copy_has_whole_groups() -> None:
    (site,) = next(case for case in CASES if case.name == "pooled").sites()
    assert site.block is not None
    assert site.block.multiple == 2
    with pytest.raises(SiteError, match="multiples of 2"):
        narrow(site.block, 3)


@given(case=st.sampled_from(CASES), seed=st.integers(0, 5), data=st.data())
@settings(max_examples=40, deadline=None)
def test_units_that_are_taken_out_of_every_tensor_are_all_that_is_lost(
    case: Case, seed: int, data: st.DataObject
) -> None:
    """Units whose outgoing weights are zero can go: what is left computes the same."""
    model = case.make(seed).double().eval()
    block = data.draw(st.sampled_from([site.block for site in case.sites()]))
    per_group = block.width // block.multiple if block.groups == 1 else block.width // block.groups
    gone = data.draw(st.integers(0, per_group - 1))
    kept = _kept(block, gone)
    assert 0 < len(kept) < block.width
    places = list(unit_tensors(model, block))
    for place in places:
        for axis in place.axes:
            if (
                axis.dim == 1 or place is places[-1]
            ):  # read here: by the consumer, or by a recurrent layer itself
                silence(model.get_submodule(place.module).get_parameter(place.name), axis, kept)
    x = case.batch(seed).double()
    with torch.no_grad():
        before = model(x)
        for place in places:
            module = model.get_submodule(place.module)
            value = module.state_dict()[place.name]
            for own in place.axes:
                value = value.index_select(own.dim, own.of_units(value.shape[own.dim], kept))
            if place.name in module._parameters:
                setattr(module, place.name, nn.Parameter(value))
            else:
                module._buffers[place.name] = value
        resize(model, block, len(kept) - block.width)
        torch.testing.assert_close(model(x), before)


@torch.no_grad()
def silence(weight: Tensor, axis: Axis, kept: Tensor) -> None:
    """Nothing reads units other than ``kept`` any more."""
    length = weight.shape[axis.dim]
    silent = sorted(set(range(length)) - set(axis.of_units(length, kept).tolist()))
    weight.index_fill_(axis.dim, torch.tensor(silent), 0.0)


def _kept(block: Block, gone: int) -> Tensor:
    """All units but one, or one whole group of a group norm, or one of every group of a convolution."""
    units = torch.arange(block.width)
    if block.groups > 1:
        return units[units % (block.width // block.groups) != gone]
    return units[units // block.multiple != gone]


class Net(nn.Module):
    """Two linear layers, and what the test does between them."""

    def __init__(self, between: Callable[..., Tensor], *extra: nn.Module) -> None:
        super().__init__()
        self.fc1 = nn.Linear(6, 8)
        self.fc2 = nn.Linear(8, 8)
        self.extra = nn.ModuleList(extra)
        self.between = between

    def forward(self, x: Tensor) -> Tensor:
        return self.between(self, x)


def residual(net: Net, x: Tensor) -> Tensor:
    y = torch.relu(net.fc1(x))
    return net.fc2(y) + y


def normalised(net: Net, x: Tensor) -> Tensor:
    return net.fc2(net.extra[0](net.fc1(x)))


def returned(net: Net, x: Tensor) -> tuple[Tensor, Tensor]:
    y = net.fc1(x)
    return net.fc2(y), y


def twice(net: Net, x: Tensor) -> Tensor:
    y = net.fc1(x)
    return net.fc2(y) + net.extra[0](y)


def joined(net: Net, x: Tensor) -> Tensor:
    return net.fc2(torch.cat([net.fc1(x)[:, :2], x], 1))


def averaged(net: Net, x: Tensor) -> Tensor:
    y = net.fc1(x)
    return net.fc2(y * y.mean(1, keepdim=True))


def over_units(net: Net, x: Tensor) -> Tensor:
    return net.fc2(torch.softmax(net.fc1(x), 1))


def weighted(net: Net, x: Tensor) -> Tensor:
    y = net.fc1(x)
    return net.fc2(torch.add(y, y, alpha=2))


def scaled(net: Net, x: Tensor) -> Tensor:
    return net.fc2(net.fc1(x) * net.extra[0].weight[0])


def reshaped(net: Net, x: Tensor) -> Tensor:
    return net.fc2(torch.relu(net.fc1(x)).view(-1, 8))


def in_place(net: Net, x: Tensor) -> Tensor:
    y = net.fc1(x)
    y.relu_()
    return net.fc2(y)


def two_inputs(net: Net, x: Tensor) -> Tensor:
    return net.fc2(torch.relu(net.fc1(x)) * net.extra[0](x.flip(1)))


def begun(net: Net, x: Tensor) -> Tensor:
    """The state of one recurrent layer is where the next begins."""
    _, state = net.extra[0](x[:, None])
    return net.extra[2](net.extra[1](x[:, None], state)[0])


REFUSED: list[tuple[Callable[..., object], tuple[nn.Module, ...], str]] = [
    (residual, (), "the operation add also reads the operation relu"),
    (normalised, (nn.LayerNorm(8),), "extra.0 (LayerNorm) is a LayerNorm, which mixes units"),
    (normalised, (nn.PReLU(),), "shares a weight among the units"),
    (normalised, (nn.Softmax(1),), "mixes units"),
    (returned, (), "what the model returns also reads fc1 (Linear)"),
    (twice, (nn.Linear(8, 8),), "extra.0 (Linear) also reads fc1 (Linear)"),
    (joined, (), "the operation cat is not known to treat each unit alone"),
    (averaged, (), "takes one number of all units"),
    (over_units, (), "the operation softmax is not known to treat each unit alone"),
    (weighted, (), "the operation add has options"),
    (scaled, (nn.Linear(8, 8),), "fc2 reads something that no layer with units makes"),
    (reshaped, (), "puts the units into another shape"),
    (in_place, (), "the operation relu_ also reads fc1 (Linear)"),
    (two_inputs, (nn.Linear(6, 8),), "fc1 and extra.0 read different things"),
]


@pytest.mark.parametrize(("between", "extra", "reason"), REFUSED, ids=[row[0].__name__ for row in REFUSED])
def test_where_units_meet_or_are_read_elsewhere_there_is_no_block(
    between: Callable[..., Tensor], extra: tuple[nn.Module, ...], reason: str
) -> None:
    assert reason in why_not(Net(between, *extra), "fc1..fc2")


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_a_recurrent_layer_that_is_given_a_state_keeps_its_size(kind: Callable[..., nn.Module]) -> None:
    net = Net(begun, kind(6, 3, batch_first=True), kind(6, 3, batch_first=True), nn.Linear(3, 2))
    assert "extra.1 is given more than one tensor" in why_not(net, "extra.1..extra.2")


def why_not(model: nn.Module, span: str) -> str:
    x = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    with isolated(model):
        seen = trace(model, lambda: model(x))
    found = find_blocks(seen, [site for site in discover(seen).offers if site.is_span])
    assert span not in found.found
    return found.reasons[span]


def plain(net: Net, x: Tensor) -> Tensor:
    return net.fc2(F.gelu(net.fc1(x), approximate="tanh"))


def test_weights_that_are_tied_or_made_of_others_cannot_grow() -> None:
    tied = Net(plain)
    tied.extra.append(nn.Linear(6, 8))
    tied.extra[0].weight = tied.fc1.weight
    assert "fc1 shares a weight with another module" in why_not(tied, "fc1..fc2")
    normed = Net(plain)
    torch.nn.utils.parametrizations.weight_norm(normed.fc2)
    assert "the weight of fc2 is made of other tensors" in why_not(normed, "fc1..fc2")


class Own(nn.Linear):
    """A linear layer with a forward of its own."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input).cumsum(-1)


class Named(nn.Linear):
    """A linear layer under another name."""


def test_a_subclass_is_a_block_only_with_the_forward_of_torch() -> None:
    own, named = Net(plain), Net(plain)
    own.fc1, named.fc1 = Own(6, 8), Named(6, 8)
    assert "fc1 is a Own with a forward of its own" in why_not(own, "fc1..fc2")
    (site,) = [site for site in explored(named, torch.randn(4, 6)).sites if site.block is not None]
    assert site.name == "fc1..fc2"


class TwoWays(nn.Module):
    """In eval mode something else reads the units."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(6, 8)
        self.fc2 = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.fc1(x))
        return self.fc2(y) if self.training else self.fc2(y) + y


def test_where_a_forward_pass_cannot_be_written_anew_the_block_is_bound_and_only_more_units_fit() -> None:
    bound = {
        case.name for case in CASES for site in case.sites() if site.block is not None and site.block.bound
    }
    assert bound == {"chunked", "dropped", "encoder"}
    (site,) = next(case for case in CASES if case.name == "encoder").sites()
    assert fits(Recipe.of("widen"), site) is None
    assert "could not be folded here" in str(fits(Recipe.of("mlp"), site))
    assert all(site.block is None for site in explored(TwoWays(), torch.randn(4, 6)).sites)
