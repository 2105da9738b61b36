"""Folding keeps the function and leaves nothing of ours, on every host of the zoo."""

from __future__ import annotations

import copy
import pickle
from collections import namedtuple
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.nn.utils.parametrizations import weight_norm

from esper.errors import SiteError
from esper.surgery.fold import fold, observe, obstacles
from esper.surgery.graft import all_grafts, attach, cut
from esper.surgery.site import Port, Site
from esper.surgery.structure import first_output
from esper.surgery.trace import trace
from hosts import HOSTS, Host, host
from surgery.places import PLACES, Place, awake, outputs, sites, traced

EVERY_HOST = pytest.mark.parametrize("host", HOSTS, ids=lambda host: host.name)
BLOCKED = {
    host.name: obstacles(traced(host, host.make(0)), [site for site in sites(host) if site.is_span])
    for host in HOSTS
}
FOLDABLE = [place for place in PLACES if place.site.name not in BLOCKED[place.host.name]]


@pytest.fixture(autouse=True)
def _same_initial_values() -> None:
    torch.default_generator.manual_seed(0)


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def folded(host: Host, model: nn.Module) -> int:
    return fold(model, observe(model, lambda: outputs(host, model)))


def foldable(host: Host) -> list[Site]:
    return [site for site in sites(host) if site.name not in BLOCKED[host.name]]


def both_modes(host: Host, model: nn.Module) -> list[Tensor]:
    return [outputs(host, model, training=training) for training in (False, True)]


def assert_same(found: list[Tensor], wanted: list[Tensor]) -> None:
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def num_params(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def traces_of_ours(model: nn.Module) -> list[Any]:
    """Classes, functions and names of esper's that can be reached from the model."""
    found: list[Any] = []
    for module in model.modules():
        hooks = [*module._forward_hooks.values(), *module._forward_pre_hooks.values()]
        callables = [type(module), *hooks, *[value for value in vars(module).values() if callable(value)]]
        found += [value for value in callables if "esper" in f"{value.__module__}"]
        found += [name for name in vars(module) if name.startswith("graft_taps")]
    return found


@pytest.mark.parametrize("place", FOLDABLE, ids=str)
@pytest.mark.parametrize("cutting", [False, True], ids=["beside", "cut"])
def test_folding_keeps_function_and_size_and_leaves_nothing_of_ours(place: Place, cutting: bool) -> None:
    host, site = place.host, place.site
    model = host.make(0)
    attach(model, awake(site))
    attach(model, awake(site, number=1, seed=3))
    if cutting:
        cut(model, site.exit)
    before, size = both_modes(host, model), num_params(model)
    assert folded(host, model) == 2
    assert_same(both_modes(host, model), before)
    assert num_params(model) == size or cutting
    assert traces_of_ours(model) == []
    assert all_grafts(model) == []
    _check_copies(host, model, before)


def _check_copies(host: Host, model: nn.Module, before: list[Tensor]) -> None:
    twin = copy.deepcopy(model)
    assert_same(both_modes(host, twin), before)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        for value in twin.state_dict().values():
            value.zero_()
    assert_same(both_modes(host, model), before)
    twin.load_state_dict(state)
    assert_same(both_modes(host, twin), before)


@EVERY_HOST
def test_grafts_at_all_sites_at_once_fold_together(host: Host) -> None:
    model = host.make(0)
    with torch.no_grad():
        for seed, site in enumerate(foldable(host)):
            graft = awake(site, seed=seed, number=seed)
            for parameter in graft.parameters():
                parameter.mul_(0.5)
            attach(model, graft)
    before, size = both_modes(host, model), num_params(model)
    assert folded(host, model) == len(foldable(host))
    assert_same(both_modes(host, model), before)
    assert num_params(model) == size
    assert traces_of_ours(model) == []
    _check_copies(host, model, before)


@EVERY_HOST
def test_a_folded_model_trains_on_as_a_grown_one_does(host: Host) -> None:
    grown, melted = host.make(0).eval(), host.make(0).eval()
    for model in (grown, melted):
        for seed, site in enumerate(foldable(host)[::2]):
            attach(model, awake(site, seed=seed))
    folded(host, melted)
    for model in (grown, melted):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        for seed in range(2):
            optimizer.zero_grad()
            host.loss(model, host.batch(seed)).backward()
            optimizer.step()
    assert_same([outputs(host, melted)], [outputs(host, grown)])


@pytest.mark.parametrize("host", [h for h in HOSTS if h.name != "spectral"], ids=lambda host: host.name)
def test_a_folded_model_survives_pickling_without_esper(host: Host) -> None:
    model = host.make(0)
    for seed, site in enumerate(foldable(host)):
        attach(model, awake(site, seed=seed))
    folded(host, model)
    data = pickle.dumps(model)
    assert b"esper" not in data
    assert_same(both_modes(host, pickle.loads(data)), both_modes(host, model))


@pytest.mark.parametrize("name", ["mlp", "branches", "shared", "tuple_output", "graph"])
def test_a_folded_model_can_be_exported(name: str) -> None:
    chosen = host(name)
    model = chosen.make(0).eval()
    for seed, site in enumerate(foldable(chosen)):
        attach(model, awake(site, seed=seed))
    folded(chosen, model)
    inputs, _ = chosen.batch(0)
    kwargs = dict(zip(("wide", "narrow"), inputs, strict=True)) if name == "branches" else {}
    program = torch.export.export(model, () if kwargs else inputs, kwargs, strict=False)
    exported: Any = program.module()
    torch.testing.assert_close(chosen.forward(exported, inputs), outputs(chosen, model))


@EVERY_HOST
def test_asking_for_obstacles_leaves_the_model_as_it_was(host: Host) -> None:
    model = host.make(0)
    before = {name: list(vars(module).items()) for name, module in model.named_modules()}
    state, stream = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    obstacles(traced(host, model), [site for site in sites(host) if site.is_span])
    after = {name: list(vars(module).items()) for name, module in model.named_modules()}
    assert list(after) == list(before)
    for name in before:
        assert [key for key, _ in after[name]] == [key for key, _ in before[name]]
        assert all(a is b for (_, a), (_, b) in zip(after[name], before[name], strict=True))
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), stream)


def test_a_model_without_grafts_folds_to_itself() -> None:
    mlp = host("mlp")
    model = mlp.make(0)
    parts = list(model.modules())
    assert folded(mlp, model) == 0
    assert list(model.modules()) == parts


def test_a_plain_layer_becomes_a_graph_whose_weights_keep_their_names() -> None:
    mlp = host("mlp")
    model = mlp.make(0)
    names = list(model.state_dict())
    attach(model, awake(sites(mlp)[0]))
    folded(mlp, model)
    assert isinstance(model[0], fx.GraphModule)
    assert set(names) < set(model.state_dict())
    assert (model[0].in_features, copy.deepcopy(model)[0].in_features) == (6, 6)


def test_other_modules_stay_what_they_are() -> None:
    reader = host("lstm")
    model = reader.make(0)
    lstm, names = model.lstm, list(model.state_dict())
    attach(model, awake(next(site for site in sites(reader) if site.name == "lstm")))
    folded(reader, model)
    assert model.lstm is lstm
    assert set(names) < set(model.state_dict())
    assert model.lstm.flatten_parameters() is None


def test_a_cut_path_is_gone_and_its_parameters_with_it() -> None:
    mlp = host("mlp")
    site, span = (next(site for site in sites(mlp) if site.name == name) for name in ("2", "0..4"))
    model, graft = mlp.make(0), awake(site)
    attach(model, graft)
    cut(model, "2")
    host_size = num_params(mlp.make(0))
    folded(mlp, model)
    assert num_params(model) == host_size - 16 * 17 + graft.num_params
    model, graft = mlp.make(0), awake(span)
    attach(model, graft)
    cut(model, "4")
    folded(mlp, model)
    assert num_params(model) == graft.num_params


def test_a_path_that_only_a_graft_after_it_reads_survives_its_cut() -> None:
    mlp = host("mlp")
    model = mlp.make(0)
    attach(model, awake(next(site for site in sites(mlp) if site.name == "2+")))
    cut(model, "2")
    before, size = both_modes(mlp, model), num_params(model)
    folded(mlp, model)
    assert_same(both_modes(mlp, model), before)
    assert num_params(model) == size


def test_a_module_that_is_not_called_while_it_is_watched_is_an_error() -> None:
    branches = host("branches")
    model = branches.make(0)
    port = Port("vector", (3,))
    attach(model, awake(Site("unused", port, Port("vector", (2,)))))
    with pytest.raises(SiteError, match="unused carries a graft but was not called"):
        observe(model, lambda: outputs(branches, model))


def test_what_is_watched_is_left_without_hooks() -> None:
    mlp = host("mlp")
    model = mlp.make(0)
    attach(model, awake(sites(mlp)[0]))
    hooks = [len(module._forward_hooks) for module in model.modules()]
    with pytest.raises(ArithmeticError):
        observe(model, lambda: 1 / 0)
    assert [len(module._forward_hooks) for module in model.modules()] == hooks


# Hosts with one unusual habit each. All read 4 features of 5 examples.

PORT = Port("vector", (4,))
Scores = namedtuple("Scores", ["loss", "logits"])


class Record(dict[str, Any]):
    """A dictionary of a class of its own."""


class Habit(nn.Module):
    """Two linear layers, ``one`` and ``two``."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Linear(4, 4)
        self.two = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.two(torch.relu(self.one(x)))


class Collection(nn.Module):
    """Returns its layer's output in a collection that ``make`` makes of it and of an integer tensor."""

    def __init__(self, make: Callable[[Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.make = make

    def forward(self, x: Tensor) -> Any:
        return self.make(torch.arange(3), self.linear(x))


def _tuple(count: Tensor, x: Tensor) -> Any:
    return count, x


def _list(count: Tensor, x: Tensor) -> Any:
    return [count, x]


def _dict(count: Tensor, x: Tensor) -> Any:
    return {"count": count, "logits": x}


def _record(count: Tensor, x: Tensor) -> Any:
    return Record(count=count, logits=x)


def _scores(count: Tensor, x: Tensor) -> Any:
    return Scores(count, x)


class Unpacking(Habit):
    """Reads collections in every way: by item, by unpacking, and whole."""

    def __init__(self, make: Callable[[Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.two = Collection(make)

    def forward(self, x: Tensor) -> Any:
        return self.two(torch.relu(self.one(x)))


@pytest.mark.parametrize("make", [_tuple, _list, _dict, _record, _scores])
@pytest.mark.parametrize("entry", ["one", "two"])
def test_a_collection_keeps_its_class_and_its_other_items(
    make: Callable[[Tensor, Tensor], Any], entry: str
) -> None:
    model, x = Unpacking(make), normal(5, 4)
    plain = first_output(model(x))
    attach(model, awake(Site("two", PORT, PORT, entry)))
    before = model(x)
    assert not torch.equal(first_output(before), plain)
    fold(model, observe(model, lambda: model(x)))
    for grown in (model, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        after = grown(x)
        assert type(after) is type(before)
        torch.testing.assert_close(after, before)
    assert traces_of_ours(model) == []


class Starred(nn.Module):
    """Takes what it is given, the tensor last."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4))

    def forward(self, *args: Any, **options: Any) -> Tensor:
        return [*args, *options.values()][-1] * self.weight


class Calls(Habit):
    """Hands a flag, and the tensor by keyword or not, to a layer that takes anything."""

    def __init__(self, *, by_name: bool) -> None:
        super().__init__()
        self.two = Starred()
        self.by_name = by_name

    def forward(self, x: Tensor) -> Tensor:
        x = self.one(x)
        return self.two(True, rows=x) if self.by_name else self.two(True, x)


@pytest.mark.parametrize("by_name", [True, False])
@pytest.mark.parametrize("entry", ["one", "two"])
def test_a_tensor_is_found_wherever_it_stands_among_the_arguments(by_name: bool, entry: str) -> None:
    model, x = Calls(by_name=by_name), normal(5, 4)
    attach(model, awake(Site("two", PORT, PORT, entry)))
    before = model(x)
    assert not torch.equal(before, model.one(x) * model.two.weight)
    fold(model, observe(model, lambda: model(x)))
    torch.testing.assert_close(model(x), before)


class Tokens(nn.Module):
    """Reads the embedding's weight for its output layer, as language models do."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(7, 4, padding_idx=0)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(self.tokens(x), self.tokens.weight)


class Aliased(nn.Module):
    """One layer under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Linear(4, 4)
        self.again = self.one

    def forward(self, x: Tensor) -> Tensor:
        return self.again(torch.relu(self.one(x)))


class Flattening(nn.Module):
    """Calls a method of its recurrent layer, and reads an attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.GRU(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        self.rnn.flatten_parameters()
        return self.rnn(x, x.new_zeros(1, 5, self.rnn.hidden_size))[0]


class Guarded(Habit):
    """Keeps a hook on a layer whose weight is parametrised."""

    def __init__(self) -> None:
        super().__init__()
        self.two = weight_norm(nn.Linear(4, 4))
        self.two.register_forward_hook(lambda _, __, out: out * 2.0)


class Buffered(Habit):
    """Reads a buffer and a parameter of its own between the layers."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("offset", torch.ones(4))
        self.scale = nn.Parameter(torch.full((4,), 2.0))

    def forward(self, x: Tensor) -> Tensor:
        return self.two(torch.relu(self.one(x)) * self.scale + self.offset)


class Listed(nn.Module):
    """Layers in a list, which itself is never called."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.tanh(layer(x))
        return x


class Writing(Habit):
    """Writes into the first layer's output and throws the result of that call away."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.one(x)
        x.relu_()
        return self.two(x)


def one_layer() -> nn.Module:
    return nn.Linear(4, 4)


SEQUENCE = Port("sequence", (5, 4), 1)
HABITS: list[tuple[str, Callable[[], nn.Module], Tensor, Site]] = [
    (
        "functional use of a weight",
        Tokens,
        torch.tensor([[1, 2, 0]]),
        Site("tokens", SEQUENCE, SEQUENCE, attachment="after"),
    ),
    ("one layer under two names", Aliased, normal(5, 4), Site("one", PORT, PORT)),
    ("a method of the layer", Flattening, normal(3, 5, 4), Site("rnn", SEQUENCE, SEQUENCE)),
    ("a hook of the host", Guarded, normal(5, 4), Site("two", PORT, PORT)),
    (
        "the model is one layer",
        one_layer,
        normal(5, 4),
        Site("", PORT, PORT),
    ),
    ("a buffer on the way", Buffered, normal(5, 4), Site("two", PORT, PORT, "one")),
    ("a list that is not called", Listed, normal(5, 4), Site("layers.1", PORT, PORT, "layers.0")),
    ("an in-place call", Writing, normal(5, 4), Site("one", PORT, PORT)),
    ("an in-place call within a span", Writing, normal(5, 4), Site("two", PORT, PORT, "one")),
]


@pytest.mark.parametrize(
    ("make", "x", "site"), [case[1:] for case in HABITS], ids=[case[0] for case in HABITS]
)
def test_unusual_hosts_keep_their_function(make: Callable[[], nn.Module], x: Tensor, site: Site) -> None:
    model = make()
    plain = model(x)
    attach(model, awake(site))
    before = model(x)
    assert not torch.allclose(before, plain)
    assert not site.is_span or obstacles(trace(model, lambda: model(x)), [site]) == {}
    fold(model, observe(model, lambda: model(x)))
    torch.testing.assert_close(model(x), before)
    torch.testing.assert_close(copy.deepcopy(model)(x), before)
    assert traces_of_ours(model) == []


def test_hooks_of_the_host_keep_their_place_before_and_after_a_graft() -> None:
    model, x, seen = nn.GRU(4, 4), normal(3, 5, 4), []
    model.register_forward_hook(lambda _, __, out: seen.append(out[0]))
    attach(model, awake(Site("", SEQUENCE, SEQUENCE)))
    model.register_forward_hook(lambda _, __, out: seen.append(out[0]))
    model(x)
    fold(model, observe(model, lambda: model(x)))
    seen[2:] = []
    model(x)
    torch.testing.assert_close(seen[2:], seen[:2])
    assert not torch.equal(seen[0], seen[1])


@pytest.mark.parametrize("cutting", [False, True])
def test_a_span_reads_buffers_and_parameters_as_they_are_now(cutting: bool) -> None:
    model, x = Buffered(), normal(5, 4)
    attach(model, awake(Site("two", PORT, PORT, "one")))
    if cutting:
        attach(model, awake(Site("two", PORT, PORT)))
        cut(model, "two")
    fold(model, observe(model, lambda: model(x)))
    for grown in (model, copy.deepcopy(model)):
        before = grown(x)
        torch.testing.assert_close(grown.double()(x.double()).float(), before)
        grown.load_state_dict({k: v * 0.5 for k, v in grown.state_dict().items()}, assign=True)
        grown.requires_grad_(True)
        assert not torch.allclose(grown(x.double()).float(), before)


class Counting(Habit):
    """Its number of calls, which no operation reads."""

    num_calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.num_calls += 1
        return super().forward(x)


class Noisy(Habit):
    """Makes a tensor of its own, which must not be frozen."""

    def forward(self, x: Tensor) -> Tensor:
        return self.two(self.one(x) + torch.randn(4))


class Attribute(Habit):
    """A tensor that is neither parameter nor buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = torch.ones(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.two(self.one(x) + self.shift)


class Twice(Habit):
    """Calls its first layer twice."""

    def forward(self, x: Tensor) -> Tensor:
        return self.two(self.one(self.one(x)))


class Moody(Habit):
    """Dropout by function."""

    def forward(self, x: Tensor) -> Tensor:
        return self.two(F.dropout(self.one(x), 0.5, self.training))


class Branching(Habit):
    """Looks at values."""

    def forward(self, x: Tensor) -> Tensor:
        return self.two(self.one(x)) if x.sum() > 0 else self.two(x)


def _rebound() -> nn.Module:
    model = Habit()
    model.forward = lambda x: model.two(model.one(x))  # type: ignore[method-assign]
    return model


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (Counting, "keeps state"),
        (Noisy, "makes constant tensors"),
        (Attribute, "neither parameters nor buffers"),
        (Twice, "does not call both ends of the span once"),
        (Moody, "depends on train or eval mode"),
        (Branching, "cannot be traced"),
        (_rebound, "has been replaced"),
    ],
)
def test_a_span_that_could_not_be_folded_is_reported(make: Callable[[], nn.Module], reason: str) -> None:
    model = make()
    found = obstacles(trace(model, lambda: model(normal(2, 4))), [Site("two", PORT, PORT, "one")])
    assert list(found) == ["one..two"]
    assert found["one..two"].startswith("the forward of the model")
    assert reason in found["one..two"]


class Parted(nn.Module):
    """Calls the layers of a sequence of its own accord."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.body:
            x = layer(x)
        return x


def test_a_span_inside_a_container_whose_forward_nobody_calls_is_reported() -> None:
    model = Parted()
    found = obstacles(trace(model, lambda: model(normal(2, 4))), [Site("body.2", PORT, PORT, "body.0")])
    assert found == {"body.0..body.2": "its ends are not called by the forward of body"}


class Saving(nn.Module):
    """Computes its first part again in the backward pass, by a function that it looks up in torch's module."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Sequential(nn.Linear(4, 4), nn.Tanh()), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        hidden: Tensor = torch.utils.checkpoint.checkpoint(self.one, x, use_reentrant=False)
        return self.two(hidden)


def test_a_span_out_of_a_part_that_is_computed_again_is_reported_however_that_is_asked_for() -> None:
    model = Saving()
    found = obstacles(trace(model, lambda: model(normal(2, 4))), [Site("two", PORT, PORT, "one.0")])
    assert list(found) == ["one.0..two"]


# The fast path of torch's own encoder.

ENDS = {"layers.0.self_attn": (8, 8), "layers.0.linear1": (8, 16), "layers.1.linear2": (16, 8)}


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("attachment", ["beside", "after"])
@pytest.mark.parametrize("masked", [False, True], ids=["whole", "padded"])
def test_torchs_encoder_computes_the_same_on_its_fast_path_while_grown_and_when_folded(
    end: str, attachment: Any, masked: bool
) -> None:
    source, target = (Port("sequence", (5, width)) for width in ENDS[end])
    site = Site(end, target if attachment == "after" else source, target, attachment=attachment)
    layer = nn.TransformerEncoderLayer(8, 2, dim_feedforward=16, dropout=0.0, batch_first=True)
    encoder = nn.TransformerEncoder(layer, 2).eval()
    x = normal(3, 5, 8)
    mask = torch.arange(5) >= torch.tensor([5, 3, 1])[:, None] if masked else None

    def scores() -> Tensor:
        out = encoder(x, src_key_padding_mask=mask)
        return out if mask is None else out.masked_fill(mask[..., None], 0.0)

    plain = scores()
    attach(encoder, awake(site))
    with torch.enable_grad():
        slow = scores()
    assert not torch.allclose(slow, plain)
    with torch.no_grad():
        torch.testing.assert_close(scores(), slow)
        fold(encoder, observe(encoder, scores))
        torch.testing.assert_close(scores(), slow)
        encoder = copy.deepcopy(encoder)
        torch.testing.assert_close(scores(), slow)
    torch.testing.assert_close(scores(), slow)


class LooksAcross(nn.Module):
    """Looks at the weight of a layer: on its way to it, and on a way around it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 3)
        self.around = nn.Linear(4, 6)

    def forward(self, x: Tensor) -> Tensor:
        straight = self.second(torch.relu(self.first(x)).to(self.second.weight.dtype))
        return self.last(straight + self.around(x.to(self.second.weight.dtype)))


@pytest.mark.parametrize("around", [False, True], ids=["on_its_way", "around_it"])
def test_a_layer_that_is_cut_stays_where_something_else_still_looks_at_its_weight(around: bool) -> None:
    model, x = LooksAcross(), normal(5, 4)
    if not around:
        model.around = nn.Identity()
        model.first, model.second, model.last = nn.Linear(4, 6), nn.Linear(6, 4), nn.Linear(4, 3)
    width = model.second.out_features
    site = Site(exit="second", source=Port("vector", (4,)), target=Port("vector", (width,)), entry="first")
    attach(model, awake(site))
    cut(model, "second")
    before = model(x)
    fold(model, observe(model, lambda: model(x)))
    assert_same([model(x)], [before])
    assert traces_of_ours(model) == []
