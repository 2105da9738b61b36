"""Growth by widening: what is attached, trained and judged as a graft ends as units of the model's own layers."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from esper import Budget, Grower, Recipe, held_out
from esper.events import Folded, Judged, Widened
from esper.growth import checkpoint
from esper.growth.joining import enlarge
from esper.growth.saved import load, save
from esper.surgery.fold import fold, observe
from esper.surgery.graft import Graft, all_grafts, attach
from esper.surgery.widening import widenable
from esper.training.graph import describe, rebuild, weights_of
from growth.loops import Lenient, Loop, Script, adamw, difference, kinds, training_state
from growth.test_resume import restore, stored
from hosts import NUM_CLASSES, Host, host, vectors
from surgery.block_hosts import CASES, Causal
from surgery.test_widening import graft

WIDEN = Recipe.of("widen", ratio=0.5)
NAMES = ("mlp", "batchnorm_cnn", "lstm", "resnet", "language_model", "autocast")


class Reader(nn.Module):
    """Attention, and classes from the mean over time."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = Causal()
        self.head = nn.Linear(6, NUM_CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, T, 6)`` to ``(B, K)``."""
        found: Tensor = self.head(self.attention(x).mean(1))
        return found


ATTENTION = Host("attention", Reader, vectors(5, 6), lambda model, inputs: model(*inputs))
HOSTS = [pytest.param(kind, id=kind.name) for kind in (ATTENTION, *map(host, NAMES))]
SOME = HOSTS[:4]


def widened(kind: Host, *, steps: int = 40, **options: Any) -> Loop:
    """A loop in which up to three widenings have been attached."""
    loop = Loop(kind, averaged=True)
    given: dict[str, Any] = {
        "judge": Lenient(),
        "controller": Script(proposals=2),
        "budget": Budget(params_ratio=None, grafts=3),
        "recipes": (WIDEN,),
    }
    loop.grow(**given | options)
    loop.run(steps)
    assert kinds(loop.grower).count("Attached") >= 1
    return loop


def scores(kind: Host, model: nn.Module) -> Tensor:
    with torch.no_grad():
        return kind.forward(model.eval(), kind.batch(99)[0]).float()


def shape_of(model: nn.Module) -> list[tuple[str, str]]:
    return [(name, type(module).__qualname__) for name, module in model.named_modules()]


@pytest.mark.parametrize("kind", HOSTS)
def test_finish_leaves_larger_layers_of_the_user_s_own_classes(kind: Host) -> None:
    fresh = kind.make(0)
    loop = widened(kind)
    assert loop.grower is not None
    assert loop.average is not None
    before = scores(kind, loop.model), scores(kind, loop.average.module)
    loop.grower.finish()
    after = scores(kind, loop.model), scores(kind, loop.average.module)
    bounds = (2e-2, 2e-2) if kind.name == "autocast" else (1e-4, 1e-5)
    torch.testing.assert_close(after, before, rtol=bounds[0], atol=bounds[1])
    assert shape_of(loop.model) == shape_of(fresh) == shape_of(loop.average.module)
    assert list(loop.model.state_dict()) == list(fresh.state_dict())
    assert loop.grower.size.params == sum(p.numel() for p in loop.model.parameters())


@pytest.mark.parametrize("kind", SOME)
def test_training_goes_on_after_finish(kind: Host) -> None:
    loop = widened(kind)
    assert loop.grower is not None
    loop.grower.finish()
    trained = [p for group in loop.optimizer.param_groups for p in group["params"]]
    assert {id(p) for p in trained} == {id(p) for p in loop.model.parameters()}
    assert len(trained) == len({id(p) for p in trained})
    assert set(loop.optimizer.state) <= set(trained)
    loop.model.train()
    before = copy.deepcopy(loop.model.state_dict())
    loop.run(3)
    assert all(torch.isfinite(p).all() for p in loop.model.parameters())
    assert any(not torch.equal(before[name], value) for name, value in loop.model.state_dict().items())


def test_where_all_grafts_are_more_of_the_same_no_cut_is_tried() -> None:
    loop = widened(host("mlp"), steps=80, judge=Lenient(cuts=True))
    assert not [event for event in loop.grower.history if isinstance(event, Judged) and event.kind == "cut"]  # type: ignore[union-attr]


def test_the_event_tells_the_zeros_where_two_widenings_meet() -> None:
    loop = widened(host("mlp"), steps=90, controller=Script(proposals=2, num_trials=2))
    assert loop.grower is not None
    before = sum(p.numel() for p in loop.model.parameters())
    loop.grower.finish()
    (told,) = [event for event in loop.grower.history if isinstance(event, Widened)]
    after = sum(p.numel() for p in loop.model.parameters())
    assert told.params == after - before
    assert told.total_params == after
    (folded,) = [event for event in loop.grower.history if isinstance(event, Folded)]
    assert folded.total_params == after


def test_beside_other_kinds_of_grafts_the_function_stays(tmp_path: Path) -> None:
    """Where the two interfere both are folded as grafts."""
    kind = host("mlp")
    recipes = (WIDEN, Recipe.of("mlp", hidden=3))
    loop = widened(kind, steps=110, recipes=recipes, controller=Script(proposals=40, num_trials=3))
    assert loop.grower is not None
    before = scores(kind, loop.model)
    loop.grower.finish()
    torch.testing.assert_close(scores(kind, loop.model), before, rtol=1e-4, atol=1e-5)
    save(tmp_path, loop.model, loop.grower)
    again = load(tmp_path, kind.make(3))
    assert torch.equal(scores(kind, again), scores(kind, loop.model))


@pytest.mark.parametrize("kind", SOME)
@pytest.mark.parametrize("folded", [False, True], ids=["live", "folded"])
def test_a_widened_model_loads_into_a_fresh_instance(kind: Host, folded: bool, tmp_path: Path) -> None:
    loop = widened(kind)
    assert loop.grower is not None
    if folded:
        loop.grower.finish()
    save(tmp_path, loop.model, loop.grower)
    again = load(tmp_path, kind.make(3))
    assert torch.equal(scores(kind, again), scores(kind, loop.model))
    assert shape_of(again) == shape_of(loop.model)


def started() -> Loop:
    loop = Loop(host("batchnorm_cnn"), averaged=True)
    loop.grow(
        judge=Lenient(),
        controller=Script(proposals=2),
        budget=Budget(params_ratio=None, grafts=3),
        recipes=(WIDEN,),
    )
    return loop


@pytest.mark.parametrize("finished", [False, True], ids=["growing", "finished"])
def test_a_run_with_widenings_resumes_to_the_bit(finished: bool, tmp_path: Path) -> None:
    whole = started()
    assert whole.grower is not None
    whole.run_at_random(45)
    if finished:
        whole.grower.finish()
        whole.model.train()
    checkpoint.write(tmp_path, stored(whole))
    done = len(whole.losses)
    whole.run_at_random(12)
    again = restore(started(), checkpoint.read(tmp_path))
    again.model.train()
    again.run_at_random(12)
    assert again.losses == whole.losses[done:]
    assert not difference(training_state(whole), training_state(again))


def test_a_state_of_a_model_with_other_widths_is_refused() -> None:
    loop = started()
    other = Loop(host("mlp"))
    other.grow(recipes=(WIDEN,))
    assert loop.grower is not None
    assert other.grower is not None
    with pytest.raises(Exception, match="another architecture"):
        other.grower.load_state_dict(loop.grower.state_dict())


Make = Callable[[list[nn.Parameter]], Optimizer]
OPTIMIZERS: dict[str, Make] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=0.1),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01),
    "fused": lambda p: torch.optim.AdamW(p, lr=0.01, fused=True),
    "amsgrad": lambda p: torch.optim.Adam(p, lr=0.01, amsgrad=True),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.01, momentum=0.5, centered=True),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=0.01),
    "nadam": lambda p: torch.optim.NAdam(p, lr=0.01),
    "radam": lambda p: torch.optim.RAdam(p, lr=0.01),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("case", ["perceptron", "gated", "turned", "grouped", "pooled", "causal"])
def test_the_next_step_is_that_of_the_grafted_model(name: str, case: str) -> None:
    """Of grafts as old as the model, in a block of their own."""
    found = next(each for each in CASES if each.name == case)
    model = found.make().double().eval()
    site = found.sites()[0]
    attach(model, graft(site))
    optimizer = OPTIMIZERS[name](list(model.parameters()))
    for seed in range(3):
        step(model, optimizer, found.batch(seed).double())
    twin, other = copy.deepcopy((model, optimizer))
    enlarge(twin, widenable(twin), other)
    assert not all_grafts(twin)
    step(model, optimizer, found.batch(3).double())
    step(twin, other, found.batch(3).double())
    x = found.batch(4).double()
    torch.testing.assert_close(twin(x), model(x), rtol=1e-9, atol=1e-10)


def step(model: nn.Module, optimizer: Optimizer, x: Tensor) -> None:
    optimizer.zero_grad()
    model(x).square().mean().backward()
    optimizer.step()


def test_averages_of_a_younger_graft_stand_for_what_they_estimate() -> None:
    found = next(each for each in CASES if each.name == "perceptron")
    model = found.make().eval()
    optimizer = adamw(model)
    for seed in range(20):
        step(model, optimizer, found.batch(seed))
    young: Graft = graft(found.sites()[1])
    attach(model, young)
    optimizer.param_groups[0]["params"].extend(young.parameters())
    for seed in range(2):
        step(model, optimizer, found.batch(seed))
    (made, *_), (_, beta) = young.parameters(), optimizer.defaults["betas"]
    estimate = optimizer.state[made]["exp_avg_sq"] / (1 - beta**2)
    enlarge(model, widenable(model), optimizer)
    state = optimizer.state[model.get_parameter("3.weight")]
    assert float(state["step"]) == 22
    torch.testing.assert_close(state["exp_avg_sq"][-len(made) :] / (1 - beta**22), estimate)


def test_the_feed_forward_part_of_torch_s_encoder_widens_and_no_path_through_it_is_cut() -> None:
    """Its forward pass cannot be written anew: a graft there can only become more units."""
    kind = host("transformer")
    loop = widened(kind, steps=80, judge=Lenient(cuts=True))
    assert loop.grower is not None
    before, fresh = scores(kind, loop.model), kind.make(0)
    loop.grower.finish()
    torch.testing.assert_close(scores(kind, loop.model), before, rtol=1e-4, atol=1e-5)
    assert "Cut" not in kinds(loop.grower)
    assert shape_of(loop.model) == shape_of(fresh)
    assert loop.model.get_parameter("encoder.layers.1.linear1.weight").shape[0] > 16


def test_a_layer_that_is_too_narrow_becomes_as_wide_as_the_task_needs() -> None:
    """Rules and judge as they are; a teacher of eight units, a student of one."""
    torch.manual_seed(0)
    teacher = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1)).requires_grad_(False)
    x, x_held = torch.randn(256, 4), torch.randn(512, 4)
    y, y_held = 4 * teacher(x), 4 * teacher(x_held)
    student = nn.Sequential(nn.Linear(4, 1), nn.ReLU(), nn.Linear(1, 1))
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-2)
    grower = Grower(
        student,
        optimizer,
        evaluate=held_out([(x_held, y_held)], F.mse_loss),
        total_steps=900,
        recipes=(Recipe.of("widen", units=4),),
    )
    losses = []
    for _ in range(900):
        optimizer.zero_grad()
        loss = F.mse_loss(student(x), y)
        loss.backward()
        optimizer.step()
        grower.step(lambda: F.mse_loss(student(x), y))
        losses.append(loss.item())
    grower.finish()
    assert student[0].out_features == student[2].in_features > 4
    assert losses[-1] < 0.2 * losses[70]


def test_an_optimizer_with_summed_rows_goes_on() -> None:
    found = next(each for each in CASES if each.name == "perceptron")
    model = found.make().eval()
    for site in found.sites():
        attach(model, graft(site))
    optimizer = torch.optim.Adafactor(model.parameters(), lr=0.01)
    step(model, optimizer, found.batch(0))
    enlarge(model, widenable(model), optimizer)
    step(model, optimizer, found.batch(1))
    assert {id(p) for p in optimizer.state} == {id(p) for p in model.parameters()}


@pytest.mark.filterwarnings("ignore:The tensor attributes:UserWarning")  # torch exports every LSTM so
@pytest.mark.parametrize("joined", [True, False], ids=["joined", "folded"])
@pytest.mark.parametrize(
    "name", ["perceptron", "convolutions", "pooled", "viewed", "lstm", "gated", "causal"]
)
def test_a_widened_network_is_written_as_a_graph_of_layers(name: str, joined: bool) -> None:
    """Also where it could not join the layers and was folded as any graft."""
    case = next(each for each in CASES if each.name == name)
    model = case.make().eval()
    for site in case.sites()[:1]:
        attach(model, graft(site))
    x = case.batch(0)
    with torch.no_grad():
        wanted = model(x)
        forms = observe(model, lambda: model(x))
    if joined:
        enlarge(model, widenable(model), None)
    fold(model, forms)
    description = describe(model)
    again = rebuild(description, weights_of(model, description))
    torch.testing.assert_close(again(x), wanted, rtol=1e-4, atol=1e-5)
    exported = torch.export.export(model, (x,), strict=False)
    torch.testing.assert_close(exported.module()(x), wanted, rtol=1e-4, atol=1e-5)
