"""Birth, detachment, names and copies of grafts, on every host of the zoo; to the bit."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from esper.blueprints import build, offers
from esper.errors import SiteError
from esper.surgery.graft import (
    Graft,
    all_grafts,
    attach,
    cut,
    detach,
    grafts_of,
    is_cut,
    release,
    switched_on,
)
from esper.surgery.site import Port, Site
from hosts import HOSTS, Host, host
from surgery.places import PLACES, Place, awake, fresh, outputs, sites

EVERYWHERE = pytest.mark.parametrize("place", PLACES, ids=str)
EVERY_HOST = pytest.mark.parametrize("host", HOSTS, ids=lambda host: host.name)


def anatomy(model: nn.Module) -> dict[str, tuple[Any, ...]]:
    """What must be there again, object for object, when all grafts are gone."""
    return {
        name: (
            module,
            type(module),
            list(vars(module)),
            list(module._modules.items()),
            list(module._parameters.items()),
            list(module._buffers.items()),
            list(module._forward_hooks.items()),
            list(module._forward_pre_hooks.items()),
            list(module._forward_hooks_with_kwargs),
            list(module._forward_pre_hooks_with_kwargs),
        )
        for name, module in model.named_modules(remove_duplicate=False)
    }


def both_modes(host: Host, model: nn.Module) -> tuple[Tensor, Tensor]:
    return outputs(host, model), outputs(host, model, training=True)


def equal(a: tuple[Tensor, ...], b: tuple[Tensor, ...]) -> bool:
    return all(torch.equal(one, other) for one, other in zip(a, b, strict=True))


def tensors(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def same_tensors(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return list(a) == list(b) and all(torch.equal(a[name], b[name]) for name in a)


@EVERYWHERE
def test_fresh_grafts_change_no_output(place: Place) -> None:
    host, site = place.host, place.site
    model = host.make(0)
    before = both_modes(host, model)
    for number in (0, 3, 6):
        attach(model, fresh(site, number=number + sites(host).index(site)))
    assert equal(both_modes(host, model), before)
    cut(model, site.exit)
    assert not equal(both_modes(host, model), before) or site.attachment == "after"


@EVERYWHERE
def test_growing_and_detaching_at_once_is_the_identity(place: Place) -> None:
    host, site = place.host, place.site
    model = host.make(0)
    before, values, scores = anatomy(model), tensors(model), both_modes(host, model)
    first, second = awake(site), awake(site, number=1)
    attach(model, first)
    attach(model, second)
    assert not equal(both_modes(host, model), scores)
    detach(model, first)
    assert grafts_of(model, site.exit) == [second]
    detach(model, second)
    assert anatomy(model) == before
    assert same_tensors(tensors(model), values)
    assert equal(both_modes(host, model), scores)


@EVERY_HOST
def test_all_sites_together_leave_nothing_behind(host: Host) -> None:
    model = host.make(0)
    before = anatomy(model)
    made = [awake(site, seed=seed) for seed, site in enumerate(sites(host))]
    for graft in made:
        attach(model, graft)
    outputs(host, model, training=True)
    for graft in made[::2] + made[1::2]:
        detach(model, graft)
    assert anatomy(model) == before


@EVERY_HOST
def test_detaching_trained_grafts_leaves_host_tensors_as_they_are_now(host: Host) -> None:
    model = host.make(0)
    names = list(model.state_dict())
    for site in sites(host)[::3]:
        attach(model, fresh(site))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for seed in range(3):
        optimizer.zero_grad()
        host.loss(model, host.batch(seed)).backward()
        optimizer.step()
    now = tensors(model)
    for _, graft in all_grafts(model):
        detach(model, graft)
    assert same_tensors(tensors(model), {name: now[name] for name in names})


@EVERY_HOST
def test_host_names_never_change_and_grafts_have_names_of_their_own(host: Host) -> None:
    model = host.make(0)
    before = {name: id(p) for name, p in model.named_parameters(remove_duplicate=False)}
    kept = list(model.state_dict())
    numbers: dict[str, int] = {}
    for site in sites(host):
        number = numbers[site.exit] = numbers.get(site.exit, -1) + 1
        assert attach(model, fresh(site)) == f"{site.exit}.grafts.{number}"
    after = {name: id(p) for name, p in model.named_parameters(remove_duplicate=False)}
    assert {name: after[name] for name in before} == before
    assert [name for name in model.state_dict() if ".grafts." not in name] == kept
    prefixes = tuple(f"{site.exit}.grafts." for site in sites(host))
    assert all(name.startswith(prefixes) for name in after if name not in before)


@EVERY_HOST
def test_copies_compute_the_same_and_share_nothing(host: Host) -> None:
    model = host.make(0)
    for seed, site in enumerate(sites(host)):
        attach(model, awake(site, seed=seed))
    before = both_modes(host, model)
    twin = copy.deepcopy(model)
    assert equal(both_modes(host, twin), before)
    with torch.no_grad():
        for value in (*twin.parameters(), *twin.buffers()):
            value.zero_()
    assert equal(both_modes(host, model), before)
    assert {id(m) for m in model.modules()}.isdisjoint(id(m) for m in twin.modules())
    ours = {id(graft.tap) for _, graft in all_grafts(model) if graft.tap}
    theirs = {id(graft.tap) for _, graft in all_grafts(twin) if graft.tap}
    assert len(ours) == len(theirs)
    assert ours.isdisjoint(theirs)


@EVERY_HOST
def test_a_copy_can_lose_its_grafts_and_the_original_keeps_them(host: Host) -> None:
    model = host.make(0)
    for seed, site in enumerate(sites(host)):
        attach(model, awake(site, seed=seed))
    before = both_modes(host, model)
    twin = copy.deepcopy(model)
    for site in sites(host):
        release(twin, site.exit)
    assert not all_grafts(twin)
    assert equal(both_modes(host, twin), both_modes(host, host.make(0)))
    assert equal(both_modes(host, model), before)


@pytest.mark.parametrize("host", [h for h in HOSTS if h.name != "spectral"], ids=lambda host: host.name)
def test_a_grown_model_survives_pickling(host: Host) -> None:
    model = host.make(0)
    for seed, site in enumerate(sites(host)):
        attach(model, awake(site, seed=seed))
    twin = pickle.loads(pickle.dumps(model))
    assert equal(both_modes(host, twin), both_modes(host, model))
    for site in sites(host):
        release(twin, site.exit)
    assert equal(both_modes(host, twin), both_modes(host, host.make(0)))


@pytest.mark.parametrize("name", ["mlp", "resnet", "branches", "shared", "tuple_output", "graph"])
def test_a_grown_model_can_be_exported(name: str) -> None:
    chosen = host(name)
    model = chosen.make(0).eval()
    for seed, site in enumerate(sites(chosen)):
        attach(model, awake(site, seed=seed))
    inputs, _ = chosen.batch(0)
    kwargs = dict(zip(("wide", "narrow"), inputs, strict=True)) if name == "branches" else {}
    program = torch.export.export(model, () if kwargs else inputs, kwargs, strict=False)
    exported = lambda *args, **named: program.module()(*args, **named)  # noqa: E731
    torch.testing.assert_close(chosen.forward(exported, inputs), outputs(chosen, model))


@EVERYWHERE
def test_a_graft_that_is_switched_on_acts_and_leaves_no_trace(place: Place) -> None:
    host, site = place.host, place.site
    model = host.make(0)
    before = anatomy(model)
    beside = awake(site)
    with switched_on(model, [beside]):
        inside = outputs(host, model, training=True)
    assert anatomy(model) == before
    attach(model, beside)
    assert torch.equal(outputs(host, model, training=True), inside)


class Failing(nn.Linear):
    """Raises what no other code here raises."""

    def forward(self, x: Tensor) -> Tensor:
        raise ArithmeticError(x.shape)


@EVERY_HOST
def test_a_switched_on_graft_that_raises_leaves_no_trace(host: Host) -> None:
    model = host.make(0)
    before = anatomy(model)
    for site in sites(host):
        graft = Graft(Failing(1, 1), site, fresh(site).recipe)
        with pytest.raises(ArithmeticError), switched_on(model, [graft]):
            host.loss(model, host.batch(0))
    assert anatomy(model) == before


NOT_CHECKPOINTED = pytest.mark.parametrize(
    "place",
    [p for p in PLACES if str(p) not in ("checkpointed-inner..part.0", "checkpointed-inner..part.3")],
    ids=str,
)


@NOT_CHECKPOINTED
def test_detached_inputs_give_the_graft_a_gradient_and_the_host_none(place: Place) -> None:
    graft, model = awake(place.site), place.host.make(0).eval()
    host_parts, own_parts = _gradients_of_update(place.host, model, graft, detached=True)
    assert set(host_parts) == {None}
    assert any(gradient is not None and bool((gradient != 0).any()) for gradient in own_parts)


@pytest.mark.parametrize("name", ["2", "2+", "2..4"])
def test_inputs_that_are_not_detached_give_the_host_a_gradient(name: str) -> None:
    mlp = host("mlp")
    graft = awake(next(site for site in sites(mlp) if site.name == name))
    gradients, _ = _gradients_of_update(mlp, mlp.make(0), graft, detached=False)
    assert gradients[0] is not None
    assert bool((gradients[0] != 0).any())


def _gradients_of_update(
    host: Host, model: nn.Module, graft: Graft, *, detached: bool
) -> tuple[list[Tensor | None], list[Tensor | None]]:
    """Gradients of the sum of all that a graft adds in one pass: of the model's parameters, of the graft's."""
    seen: list[Tensor] = []
    parameters, own = list(model.parameters()), list(graft.parameters())
    graft.register_forward_hook(lambda _, __, out: seen.append(out))
    with switched_on(model, [graft], detached=detached):
        host.loss(model, host.batch(0))
        update = torch.stack([out.float().sum() for out in seen]).sum()
        gradients = torch.autograd.grad(update, [*parameters, *own], allow_unused=True)
    return list(gradients[: len(parameters)]), list(gradients[len(parameters) :])


def test_a_span_into_a_checkpointed_part_is_refused_when_the_part_is_computed_again() -> None:
    checkpointed = host("checkpointed")
    model = checkpointed.make(0)
    span = next(site for site in sites(checkpointed) if site.name == "inner..part.3")
    with (
        switched_on(model, [awake(span)]),
        pytest.raises(SiteError, match="computed again under checkpointing"),
    ):
        checkpointed.loss(model, checkpointed.batch(0)).backward()


@pytest.mark.parametrize("name", ["2", "2..4", "0..4"])
@pytest.mark.parametrize("attached", [False, True], ids=["alone", "with another attached"])
def test_an_exclusive_graft_takes_the_place_of_the_output(name: str, attached: bool) -> None:
    mlp = host("mlp")
    model = mlp.make(0)
    site = next(site for site in sites(mlp) if site.name == name)
    if attached:
        attach(model, awake(sites(mlp)[2], seed=9))
        attach(model, awake(site, seed=9))
    graft = awake(site)
    with switched_on(model, [graft], exclusive=True):
        inside = outputs(mlp, model)
    release(model, site.exit)
    silent = copy.deepcopy(model)
    for parameter in silent.get_submodule(site.exit).parameters():
        nn.init.zeros_(parameter)
    attach(silent, graft)
    assert torch.equal(outputs(mlp, silent), inside)


def test_a_cut_takes_the_own_path_out_and_later_grafts_still_add() -> None:
    mlp = host("mlp")
    site = sites(mlp)[2]
    model, first, second = mlp.make(0), awake(sites(mlp)[2]), awake(site, number=1)
    with pytest.raises(SiteError, match="no output left"):
        cut(model, site.exit)
    attach(model, first)
    cut(model, site.exit)
    attach(model, second)
    assert is_cut(model, site.exit)
    x = mlp.batch(0)[0][0]
    h = torch.relu(model[0](x))
    torch.testing.assert_close(model(x), model[4](torch.relu(first(h) + second(h))))
    release(model, site.exit)
    assert not is_cut(model, site.exit)
    assert torch.equal(outputs(mlp, model), outputs(mlp, mlp.make(0)))


@pytest.mark.parametrize("kind", [nn.Sequential, nn.ModuleList])
def test_a_module_that_runs_all_its_children_takes_no_graft(kind: type[nn.Module]) -> None:
    port = Port("vector", (4,))
    model = nn.ModuleDict(
        {"part": kind([nn.Linear(4, 4)]) if kind is nn.ModuleList else kind(nn.Linear(4, 4))}
    )
    before = anatomy(model)
    with pytest.raises(SiteError, match="cannot hold a child named 'grafts'"):
        attach(model, fresh(Site("part", port, port)))
    assert anatomy(model) == before


class Taken(nn.Module):
    """Has a name that a graft would need."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4))
        self.grafts = [1, 2]

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight


def test_a_name_that_the_host_uses_itself_is_not_overwritten() -> None:
    port = Port("vector", (4,))
    model = nn.ModuleDict({"part": Taken()})
    with pytest.raises(SiteError, match="cannot hold a child named 'grafts'"):
        attach(model, fresh(Site("part", port, port)))
    assert model["part"].grafts == [1, 2]


def test_what_is_not_attached_cannot_be_detached() -> None:
    mlp = host("mlp")
    model, site = mlp.make(0), sites(mlp)[0]
    with pytest.raises(SiteError, match="no such graft at 0"):
        detach(model, fresh(site))
    attach(model, fresh(site))
    with pytest.raises(SiteError, match="no such graft at 0"):
        detach(model, fresh(site))


def test_the_exit_of_a_span_without_its_entry_is_an_error_that_says_so() -> None:
    mlp = host("mlp")
    model, span = mlp.make(0), next(site for site in sites(mlp) if site.is_span)
    attach(model, awake(span))
    hidden = torch.relu(model[0](mlp.batch(0)[0][0]))
    model[2](hidden)
    with pytest.raises(SiteError, match="exit of a span was called"):
        model[2](hidden)


def test_a_copy_made_in_the_middle_of_a_pass_holds_no_tensor_of_it() -> None:
    mlp = host("mlp")
    model, span = mlp.make(0), next(site for site in sites(mlp) if site.is_span)
    graft = awake(span)
    attach(model, graft)
    model[0](mlp.batch(0)[0][0])
    for twin in (copy.deepcopy(graft), pickle.loads(pickle.dumps(graft))):
        assert twin.tap.value is None
    assert graft.tap is not None
    assert graft.tap.value is not None


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64], ids=str)
@EVERY_HOST
def test_grafts_take_the_dtype_of_their_host_and_keep_it(host: Host, dtype: torch.dtype) -> None:
    if host.name == "autocast":
        pytest.skip("autocast chooses the dtype")
    model = host.make(0).eval().to(dtype)
    inputs, _ = host.batch(0)
    inputs = tuple(x.to(dtype) if x.is_floating_point() else x for x in inputs)
    before = host.forward(model, inputs)
    for site in sites(host):
        attach(model, fresh(site))
    after = host.forward(model, inputs)
    assert after.dtype == before.dtype
    assert torch.equal(after, before)
    assert {p.dtype for _, graft in all_grafts(model) for p in graft.parameters()} == {dtype}


@pytest.mark.parametrize("training", [True, False])
def test_a_graft_joins_in_the_mode_of_its_host(training: bool) -> None:
    mlp = host("mlp")
    model = mlp.make(0).train(training)
    graft = fresh(sites(mlp)[0])
    attach(model, graft)
    assert graft.training is training
    assert graft.body.training is training


def padded(model: nn.Module) -> Tensor:
    """Output of an encoder without gradients for sequences of lengths 5, 3 and 1; zero where they are padded."""
    x = torch.randn(3, 5, 8, generator=torch.Generator().manual_seed(0))
    mask = torch.arange(5) >= torch.tensor([5, 3, 1])[:, None]
    with torch.no_grad():
        return model(x, src_key_padding_mask=mask).masked_fill(mask[..., None], 0.0)


ENDS = ("layers.0.self_attn", "layers.0.linear1", "layers.1.linear2")


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
@pytest.mark.parametrize("entry", ENDS)
@pytest.mark.parametrize("exit_", ENDS)
def test_the_fast_path_of_torchs_encoder_neither_skips_a_graft_nor_stumbles_over_it(
    entry: str, exit_: str
) -> None:
    if ENDS.index(entry) > ENDS.index(exit_):
        return
    widths = {"layers.0.self_attn": (8, 8), "layers.0.linear1": (8, 16), "layers.1.linear2": (16, 8)}
    source, target = (Port("sequence", (5, width)) for width in (widths[entry][0], widths[exit_][1]))
    site = Site(exit_, source, target, entry)
    layer = nn.TransformerEncoderLayer(8, 2, dim_feedforward=16, dropout=0.0, batch_first=True)
    for recipe in offers(site):
        encoder = nn.TransformerEncoder(layer, 2).eval()
        before = padded(encoder)
        graft = Graft(build(recipe, site, seed=0), site, recipe)
        attach(encoder, graft)
        torch.testing.assert_close(padded(encoder), before)
        for parameter in graft.parameters():
            nn.init.normal_(parameter, generator=torch.Generator().manual_seed(1))
        x = torch.randn(3, 5, 8)
        with torch.no_grad():
            torch.testing.assert_close(encoder(x), encoder.train()(x))
        assert not torch.allclose(padded(encoder.eval()), before)


class Early(nn.Module):
    """Leaves before its second layer when asked to."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 4)
        self.leave = False

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.one(torch.relu(x))
        return hidden if self.leave else self.two(hidden)


@pytest.mark.parametrize("attached", [True, False])
def test_a_pass_that_never_reaches_a_spans_exit_leaves_no_tensor_behind(attached: bool) -> None:
    model, port = Early(), Port("vector", (4,))
    graft = awake(Site("two", port, port, "one"))
    model.leave = True
    x = torch.ones(2, 4, requires_grad=True)
    if attached:
        attach(model, graft)
        model(x)
    else:
        with switched_on(model, [graft]):
            model(x)
    assert graft.tap is not None
    assert graft.tap.value is None


def test_grafts_that_an_exclusive_trial_would_replace_do_not_run_meanwhile() -> None:
    mlp = host("mlp")
    model, site = mlp.make(0), next(site for site in sites(mlp) if not site.is_span)
    attached, trial = awake(site), awake(site, seed=1)
    attach(model, attached)
    calls: list[nn.Module] = []
    attached.register_forward_pre_hook(lambda graft, _: calls.append(graft))
    with switched_on(model, [trial], exclusive=True):
        alone = outputs(mlp, model)
    assert calls == []
    outputs(mlp, model)
    assert calls == [attached]
    detach(model, attached)
    attach(model, trial)
    cut(model, site.exit)
    assert torch.equal(alone, outputs(mlp, model))
