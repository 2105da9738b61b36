"""A whole run: what is needed is found and kept, what is not stays away, and in the end all is plain PyTorch."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from esper import Budget, Grower, Judge, Recipe, Rules, blueprint, held_out
from esper.blueprints import catalogue
from esper.controller.rules import Pace
from esper.events import Attached, Cut, Ended, Folded, Judged, Refused
from esper.surgery.graft import all_grafts
from esper.surgery.isolation import isolated
from esper.surgery.site import Port
from esper.surgery.trace import trace
from growth.loops import (
    MLP,
    PACE,
    ROOMY,
    Doubtful,
    Lenient,
    Loop,
    Script,
    Stern,
    adamw,
    difference,
    evaluation,
    kinds,
    seed_everything,
    state,
    structure,
)
from hosts import Host, host

NAMES = (
    "mlp",
    "batchnorm_cnn",
    "resnet",
    "lstm",
    "language_model",
    "branches",
    "shared",
    "spectral",
    "in_place",
    "conv1d",
)
HOSTS = [pytest.param(host(name), id=name) for name in (*NAMES, "graph", "autocast")]


@pytest.fixture(autouse=True)
def _own_blueprints(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "_blueprints", dict(catalogue._blueprints))
    blueprint("normed", pairs=[("vector", "vector")])(normed)


def outputs(loop: Loop) -> Tensor:
    loop.model.eval()
    with torch.no_grad():
        found = loop.host.forward(loop.model, loop.host.batch(99)[0]).clone()
    loop.model.train()
    return found


@pytest.mark.parametrize("kind", HOSTS)
def test_finish_keeps_the_function_and_leaves_plain_pytorch_that_trains_on(kind: Host) -> None:
    loop = Loop(kind, averaged=True)
    grower = loop.grow(
        judge=Lenient(), controller=Script(num_trials=1), budget=Budget(params_ratio=None, grafts=2)
    )
    for _ in range(60):
        loop.run(1)
        if kinds(grower).count("Attached") == 2:
            break
    assert kinds(grower).count("Attached") == 2
    before = outputs(loop)
    assert grower.finish() is loop.model
    torch.testing.assert_close(outputs(loop), before, rtol=1e-4, atol=1e-5)
    for model in (loop.model, loop.average):
        assert not [m for m in model.modules() if type(m).__module__.startswith("esper")]
        assert not any(structure(model)["hooks"])
    assert {id(p) for group in loop.optimizer.param_groups for p in group["params"]} == {
        id(p) for p in loop.model.parameters()
    }
    assert (
        grower.size.params
        == grower.history[-1].total_params
        == sum(p.numel() for p in loop.model.parameters())
    )
    last = outputs(loop)
    loop.run(3)
    assert not torch.equal(last, outputs(loop))
    assert (
        all(p.grad is not None for p in loop.model.parameters() if p.requires_grad) or kind.name == "branches"
    )


def test_a_second_finish_does_nothing() -> None:
    loop = Loop(host("mlp"))
    grower = loop.grow(judge=Lenient(), budget=Budget(params_ratio=None, grafts=1))
    loop.run(20)
    grower.finish()
    shape, events = structure(loop.model), grower.history
    assert isinstance(events[-1], Folded)
    assert events[-1].num_grafts == 1
    assert grower.finish() is loop.model
    assert structure(loop.model) == shape
    assert grower.history == events
    assert grower.finished


@pytest.mark.parametrize("phase", ["rest", "sense", "learn", "try"])
def test_finishing_in_the_middle_of_a_round_leaves_the_host_untouched(phase: str) -> None:
    loop = Loop(host("batchnorm_cnn"))
    shape = structure(loop.model)
    grower = loop.grow()
    loop.until(phase)
    loop.run(1)
    before = state(loop)
    grower.finish()
    assert not difference(before, state(loop))
    assert structure(loop.model) == shape
    assert grower.finished


def test_a_cut_takes_the_old_path_out_of_model_and_optimizer() -> None:
    loop = Loop(host("mlp"))
    grower = loop.grow(judge=Lenient(cuts=True), recipes=[MLP], budget=Budget(params_ratio=None, grafts=1))
    loop.run(30)
    event = next(event for event in grower.history if isinstance(event, Cut))
    trained = sum(p.numel() for group in loop.optimizer.param_groups for p in group["params"])
    assert trained == event.total_params == grower.size.params
    owned = {id(p) for group in loop.optimizer.param_groups for p in group["params"]}
    assert all(p.grad is None for p in loop.model.parameters() if id(p) not in owned)
    before = outputs(loop)
    grower.finish()
    torch.testing.assert_close(outputs(loop), before)
    assert trained == sum(p.numel() for p in loop.model.parameters())


@pytest.mark.parametrize("kind", [*HOSTS, *map(host, ("transformer", "tuple_output", "own_parameters"))])
@pytest.mark.parametrize("back", [1, 5, 9])
def test_what_a_cut_leaves_is_of_the_size_that_was_told(kind: Host, back: int) -> None:
    loop = Loop(kind)
    script = SpanFirst(num_trials=1, times=replace(PACE, rest=1), back=back)
    grower = loop.grow(judge=Lenient(cuts=True), controller=script, budget=replace(ROOMY, grafts=1))
    loop.run(40)
    before = grower.size
    cuts = [event for event in grower.history if isinstance(event, Cut)]
    assert all(event.params > 0 and event.total_macs == before.macs for event in cuts)
    model = grower.finish()
    assert before.params == sum(p.numel() for p in model.parameters())
    assert before.macs == macs_of(loop)


@pytest.mark.parametrize(("name", "site"), [("lstm", "lstm"), ("tuple_output", "first"), ("mlp", "2")])
def test_a_path_that_could_not_be_left_out_whole_is_never_asked_for_its_cut(name: str, site: str) -> None:
    loop = Loop(host(name))
    if name == "mlp":
        loop.model.get_submodule(site).register_forward_hook(lambda *_: None)
    recipes = [MLP, Recipe.of("ffn", ratio=1.0)]
    grower = loop.grow(
        judge=Lenient(cuts=True), recipes=recipes, sites=[site], budget=replace(ROOMY, grafts=1)
    )
    loop.run(40)
    assert "Attached" in kinds(grower)
    assert not [event for event in grower.history if isinstance(event, Judged) and event.kind == "cut"]


def macs_of(loop: Loop) -> int:
    with isolated(loop.model, eval_mode=True):
        return trace(loop.model, lambda: loop.host.loss(loop.model, loop.host.batch(1000))).macs


@dataclass(frozen=True)
class SpanFirst(Script):
    """Tries one candidate, counted ``back`` from the end when those across spans come last."""

    back: int = 1

    def propose(self, view: Any) -> list[Any]:
        ordered = sorted(view.candidates, key=lambda c: c.site.is_span)
        return [ordered[-min(self.back, len(ordered))]]


def test_what_the_trials_have_trained_is_what_joins_and_what_stays_after_a_cut_buffers_included() -> None:
    loop = Loop(host("mlp"))
    grower = loop.grow(judge=Lenient(cuts=True), recipes=[Recipe.of("normed")], sites=["2"])
    seen: list[float] = []

    def note(event: object) -> None:
        if isinstance(event, (Attached, Cut)):
            seen.append(float(evaluation(loop.host)(loop.model.eval()).detach().double().mean()))
            loop.model.train()
            ages = {
                float(loop.optimizer.state[p]["step"])
                for _, g in all_grafts(loop.model)
                for p in g.parameters()
            }
            assert ages == {PACE.trial}

    grower.on_event(note)
    loop.run(30)
    judged = [event.host_loss - event.gain for event in grower.history if isinstance(event, Judged)]
    assert kinds(grower).count("Cut") == 1
    assert seen == pytest.approx(judged[: len(seen)], abs=1e-9)


def test_averages_receive_every_graft_and_follow_it() -> None:
    loop = Loop(host("mlp"), averaged=True)
    loop.grow(judge=Lenient(), budget=Budget(params_ratio=None, grafts=1))
    loop.run(30)
    assert loop.average is not None
    names = [name for name, _ in loop.model.named_parameters()]
    assert [name for name, _ in loop.average.module.named_parameters()] == names
    assert any("grafts" in name for name in names)
    own = {id(p) for p in loop.model.parameters()}
    assert not any(id(p) in own for p in loop.average.parameters())


def test_a_cut_gives_averages_the_weights_that_were_trained_without_the_path() -> None:
    loop = Loop(host("mlp"), averaged=True)
    grower = loop.grow(judge=Lenient(cuts=True), recipes=[MLP], budget=Budget(params_ratio=None, grafts=1))
    seen: list[bool] = []

    def note(event: object) -> None:
        if isinstance(event, Cut) and loop.average is not None:
            twins = (dict(all_grafts(model)) for model in (loop.model, loop.average.module))
            live, average = ({n: graft.state_dict() for n, graft in own.items()} for own in twins)
            seen.append(not difference(live, average))

    grower.on_event(note)
    loop.run(30)
    assert seen == [True]


def test_the_last_graft_is_asked_for_its_cut_and_nothing_is_tried_that_would_end_too_late() -> None:
    whole = PACE.start + PACE.round
    for last in range(whole, whole + PACE.rest + PACE.trial + 2):
        loop = Loop(host("mlp"))
        grower = loop.grow(judge=Stern(grafts=True), recipes=[MLP], total_steps=last)
        loop.run(last + PACE.round)
        steps = [event.step for event in grower.history if isinstance(event, (Attached, Judged))]
        assert max(steps) <= last
        cuts = [event for event in grower.history if isinstance(event, Judged) and event.kind == "cut"]
        assert len(cuts) == (last >= whole + PACE.rest + PACE.trial)


def test_no_more_is_judged_than_there_are_tests() -> None:
    loop = Loop(host("mlp"))
    grower = loop.grow(judge=replace(Stern(), tests=3), controller=Script(num_trials=2))
    loop.run(80)
    assert sum(isinstance(event, Judged) and event.kind == "graft" for event in grower.history) == 3


def test_grafts_appear_under_their_site_and_the_hosts_names_stay() -> None:
    loop = Loop(host("resnet"))
    names = [name for name, _ in loop.model.named_parameters()]
    grower = loop.grow(judge=Lenient(), budget=Budget(params_ratio=None, grafts=1))
    loop.run(20)
    found = [name for name, _ in loop.model.named_parameters()]
    (event,) = (event for event in grower.history if isinstance(event, Attached))
    assert [name for name in found if "grafts" not in name] == names
    assert {name for name in found if name not in names} == {
        n for n in found if n.startswith(f"{event.path}.")
    }
    assert event.total_params == sum(p.numel() for p in loop.model.parameters())
    assert event.params == sum(graft.num_params for _, graft in all_grafts(loop.model))


def test_held_out_losses_are_always_taken_in_eval_mode_and_the_users_modes_stay() -> None:
    loop = Loop(host("batchnorm_cnn"))
    loop.model[1].eval()
    flags = [module.training for module in loop.model.modules()]
    seen: set[bool] = set()
    evaluate = evaluation(loop.host)

    def watched(model: nn.Module) -> Tensor:
        seen.update(module.training for module in model.modules())
        return evaluate(model)

    grower = loop.grow(evaluate=watched, judge=Lenient(), budget=Budget(params_ratio=None, grafts=1))
    loop.run(16)
    assert flags == [module.training for module in loop.model.modules()]
    loop.run(30)
    assert {"Judged", "Attached"} <= set(kinds(grower))
    assert seen == {False}


def test_the_budget_ends_growth_before_it_is_exceeded() -> None:
    loop = Loop(host("mlp"), optimizer=lambda model: torch.optim.AdamW(model.parameters(), lr=1e-3))
    options = {"recipes": [MLP], "budget": Budget(params=1_500), "controller": Script(rounds=2)}
    grower = loop.grow(judge=Lenient(), **options)
    start = sum(p.numel() for p in loop.model.parameters())
    loop.run(150)
    assert grower.finished
    assert isinstance(grower.history[-1], Ended)
    assert start < sum(p.numel() for p in loop.model.parameters()) <= 1_500
    assert grower.size.params == sum(p.numel() for p in loop.model.parameters())


def test_growth_closes_when_a_round_could_no_longer_end_in_time() -> None:
    loop = Loop(host("mlp"))
    grower = loop.grow(judge=Lenient(), total_steps=16)
    loop.run(5)
    assert grower.finished
    assert "before growth closes" in grower.history[-1].reason


def test_growth_ends_when_the_judgements_are_used_up() -> None:
    loop = Loop(host("mlp"))
    grower = loop.grow(judge=Stern(tests=1), controller=Script(num_trials=1))
    loop.run(30)
    assert grower.finished
    assert kinds(grower).count("Judged") == 1


def judgements(grower: Grower) -> list[Judged]:
    return [event for event in grower.history if isinstance(event, Judged)]


def test_an_unsettled_gain_stays_on_trial_until_it_is_settled_and_joins_as_trained_by_then() -> None:
    loop = Loop(host("mlp"))
    grower = loop.grow(judge=Doubtful(tests=5), controller=Script(num_trials=1))
    loop.run(PACE.start + PACE.round + 2 * PACE.trial + 1)
    first, second, third = judgements(grower)
    assert first.candidate == second.candidate == third.candidate
    assert [event.step - first.step for event in (second, third)] == [PACE.trial, 2 * PACE.trial]
    assert first.unsettled
    assert not kinds(grower).count("Refused")
    assert not kinds(grower).count("Attached")


@pytest.mark.parametrize("limits", [{"judge": Doubtful(tests=2)}, {"judge": Doubtful(), "total_steps": 24}])
def test_an_unsettled_gain_is_refused_when_there_is_no_test_or_no_time_for_another_look(limits: Any) -> None:
    loop = Loop(host("mlp"))
    grower = loop.grow(controller=Script(num_trials=1), **limits)
    loop.run(40)
    assert len(judgements(grower)) == 2
    assert kinds(grower)[-3:] == ["Judged", "Refused", "Ended"]


def test_unsettled_gains_beyond_the_tests_that_are_left_are_refused_not_forgotten() -> None:
    loop = Loop(host("mlp"))
    grower = loop.grow(judge=Doubtful(tests=3), controller=Script(num_trials=2))
    loop.run(PACE.start + PACE.round)
    first, second = judgements(grower)
    refused = [event.candidate for event in grower.history if isinstance(event, Refused)]
    assert refused == [second.candidate]
    loop.run(PACE.trial)
    assert [event.candidate for event in judgements(grower)[2:]] == [first.candidate]


def test_a_settled_gain_is_attached_at_once() -> None:
    loop = Loop(host("mlp"))
    grower = loop.grow(judge=Doubtful(settled=math.inf), controller=Script(num_trials=1))
    loop.run(PACE.start + PACE.round)
    assert kinds(grower)[-2:] == ["Judged", "Attached"]


def test_a_grower_prints_what_it_grows_and_what_it_is_doing() -> None:
    loop = Loop(host("mlp"))
    grower = loop.grow(judge=Lenient(), budget=Budget(params_ratio=None, grafts=1))
    loop.run(PACE.start + PACE.round)
    params = sum(p.numel() for p in loop.model.parameters())
    assert f"of {type(loop.model).__name__}: {params:,} parameters, 1 grafts, 'rest'" in repr(grower)


def test_listeners_hear_every_event_when_it_happens() -> None:
    loop = Loop(host("mlp"))
    grower = loop.grow(judge=Lenient(), budget=Budget(params_ratio=None, grafts=1))
    heard: list[Any] = []
    grower.on_event(lambda event: heard.append((event, len(loop.losses))))
    loop.run(30)
    assert [event for event, _ in heard] == list(grower.history)
    assert all(event.step == when for event, when in heard)


def test_the_same_seed_gives_the_same_growth_and_another_seed_another_one() -> None:
    def grown(seed: int) -> list[float]:
        loop = Loop(host("mlp"))
        loop.grow(judge=Lenient(), recipes=[MLP], seed=seed)
        return loop.run(40).losses

    first = grown(0)
    torch.manual_seed(123)
    assert grown(0) == first
    assert grown(1) != first


def test_restricted_sites_are_the_only_ones_that_grow() -> None:
    loop = Loop(host("mlp"))
    grower = loop.grow(judge=Lenient(), sites=["2"])
    loop.run(60)
    paths = {event.path.rpartition(".grafts")[0] for event in grower.history if isinstance(event, Attached)}
    assert paths == {"2"}


def test_a_model_that_is_called_several_times_a_step_is_left_alone_and_grows() -> None:
    kind = host("mlp")

    def trained(judge: Judge | None) -> tuple[nn.Module, Grower | None]:
        seed_everything(0)
        model = kind.make(0)
        optimizer = adamw(model)
        grower = None
        if judge is not None:
            options: dict[str, Any] = {"controller": Script(), "recipes": [MLP], "budget": ROOMY}
            grower = Grower(model, optimizer, evaluate=evaluation(kind), judge=judge, **options)
        for step in range(20):
            (left,), _ = kind.batch(step)
            (right,), _ = kind.batch(step + 100)

            def pull(left: Tensor = left, right: Tensor = right) -> Tensor:
                return F.mse_loss(model(left), model(F.dropout(right, 0.1)))

            optimizer.zero_grad()
            pull().backward()
            optimizer.step()
            if grower is not None:
                grower.step(pull)
        return model, grower

    plain, _ = trained(None)
    refused, grower = trained(Stern())
    assert grower is not None
    assert "Judged" in kinds(grower)
    assert not difference(plain.state_dict(), refused.state_dict())
    _, grower = trained(Lenient())
    assert grower is not None
    assert "Attached" in kinds(grower)


RULES = Rules(
    start=5, sense=3, updates=60, trial=60, rest_steps=10, num_shadows=4, num_trials=1, stop_after=2
)


def task(target: Callable[[Tensor], Tensor], *, seed: int) -> tuple[Any, Any, Callable[[nn.Module], float]]:
    """Training loader, held-out loader, and the loss on a test set that growth never sees."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(1_600, 5, generator=generator)
    y = target(x)
    training = DataLoader(TensorDataset(x[:600], y[:600]), batch_size=50, shuffle=True)
    held_out_rows = DataLoader(TensorDataset(x[600:1_000], y[600:1_000]), batch_size=200)

    def test_loss(model: nn.Module) -> float:
        with torch.no_grad():
            return float(F.mse_loss(model(x[1_000:]), y[1_000:]))

    return training, held_out_rows, test_loss


def grown_on(
    target: Callable[[Tensor], Tensor], *, seed: int, epochs: int
) -> tuple[nn.Module, Grower, float]:
    seed_everything(seed)
    training, rows, test_loss = task(target, seed=seed)
    model = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    recipes = [Recipe.of("mlp", ratio=4.0), Recipe.of("gated", ratio=2.0)]
    options: dict[str, Any] = {
        "controller": RULES,
        "recipes": recipes,
        "budget": Budget(params_ratio=None, grafts=2),
    }
    grower = Grower(model, optimizer, evaluate=held_out(rows, F.mse_loss), **options)
    for _ in range(epochs):
        for x, y in training:
            optimizer.zero_grad()
            F.mse_loss(model(x), y).backward()
            optimizer.step()
            grower.step(lambda x=x, y=y: F.mse_loss(model(x), y))
    grower.finish()
    return model, grower, test_loss(model)


def test_a_graft_that_is_needed_is_found_kept_and_lowers_the_loss_on_fresh_data() -> None:
    def teacher(x: Tensor) -> Tensor:
        return (x[:, :2].abs().sum(1, keepdim=True) - 2 * (x[:, 2:4] * x[:, 1:3]).sum(1, keepdim=True)) / 3

    model, grower, loss = grown_on(teacher, seed=0, epochs=40)
    assert "Attached" in kinds(grower)
    assert "RolledBack" not in kinds(grower)
    seed_everything(0)
    training, _, test_loss = task(teacher, seed=0)
    host_alone = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 1))
    optimizer = torch.optim.AdamW(host_alone.parameters(), lr=1e-2)
    for _ in range(40):
        for x, y in training:
            optimizer.zero_grad()
            F.mse_loss(host_alone(x), y).backward()
            optimizer.step()
    assert loss < 0.5 * test_loss(host_alone)
    assert not [m for m in model.modules() if type(m).__module__.startswith("esper")]


def test_nothing_is_attached_where_there_is_only_noise() -> None:
    noise = torch.Generator().manual_seed(3)
    _, grower, _ = grown_on(lambda x: torch.randn(len(x), 1, generator=noise), seed=1, epochs=40)
    assert grower.finished
    assert "Attached" not in kinds(grower)
    assert kinds(grower).count("Sensed") >= 2


def test_a_long_round_takes_the_steps_that_the_pace_says() -> None:
    times = Pace(start=4, sense=3, shadow=5, trial=7, rest=6, last=None, prunings=0)
    loop = Loop(host("mlp"))
    grower = loop.grow(controller=Script(times=times))
    seen = []
    for _ in range(30):
        loop.run(1)
        seen.append(grower.phase)
    assert (
        seen
        == ["rest"] * 3
        + ["sense"] * 3
        + ["learn"] * 5
        + ["try"] * 7
        + ["rest"] * 6
        + ["sense"] * 3
        + ["learn"] * 3
    )
    assert replace(times, last=50).round == 15 != PACE.round


def normed(source: Port, target: Port) -> nn.Module:
    """A body with buffers: what it normalises by is learnt in the trial."""
    last = nn.Linear(source.width, target.width)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(nn.BatchNorm1d(source.width), last)
