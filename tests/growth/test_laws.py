"""Growth that has not earned its keep leaves no trace, to the bit, on every kind of host."""

from __future__ import annotations

import copy
import gc
import warnings

import pytest
import torch
from torch import Tensor, nn
from torch.optim import lr_scheduler

from esper import Budget, Grower, Judge, Recipe, blueprint, held_out
from esper.blueprints import catalogue
from esper.events import Judged
from esper.growth.phases import course
from esper.surgery.graft import all_grafts, detach
from esper.surgery.site import Port
from growth.loops import (
    ROOMY,
    Lenient,
    Loop,
    Script,
    Stern,
    adamw,
    difference,
    evaluation,
    kinds,
    model_state,
    state,
    streams,
    structure,
    training_state,
)
from hosts import HOSTS, Host, host

ALL = [pytest.param(h, id=h.name) for h in HOSTS]
NAMES = ("mlp", "batchnorm_cnn", "lstm", "branches", "shared", "counters")
SOME = [pytest.param(host(name), id=name) for name in NAMES]


@pytest.fixture(autouse=True)
def _own_blueprints(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "_blueprints", dict(catalogue._blueprints))
    blueprint("noisy", pairs=[("vector", "vector")])(noisy)


@pytest.mark.parametrize("kind", ALL)
def test_preparing_a_model_changes_nothing(kind: Host) -> None:
    loop = Loop(kind).run(2)
    next(loop.model.children()).eval()
    before, shape = state(loop), structure(loop.model)
    grower = loop.grow()
    str(grower.sites())
    grower.state_dict()
    assert not difference(before, state(loop))
    assert shape == structure(loop.model)


@pytest.mark.parametrize("kind", ALL)
def test_refused_trials_leave_the_trajectory_of_a_run_without_growth(kind: Host) -> None:
    plain = Loop(kind).run(26)
    expected = state(plain)
    loop = Loop(kind)
    shape = structure(loop.model)
    grower = loop.grow()
    loop.run(26)
    assert not difference(expected, state(loop))
    assert kinds(grower).count("Judged") >= 2
    assert grower.finish() is loop.model
    assert not difference(expected, state(loop))
    assert shape == structure(loop.model)


def bytes_of_parameters() -> int:
    """Of all that are alive, those in rings of references included."""
    with warnings.catch_warnings(action="ignore"):
        alive = [o for o in gc.get_objects() if type(o) is nn.Parameter and not o.is_meta]
    return sum(parameter.untyped_storage().nbytes() for parameter in alive)


@pytest.mark.parametrize("judge", [Stern(), Stern(grafts=True)], ids=["grafts", "cuts"])
def test_what_is_refused_gives_its_memory_back_before_the_garbage_collector_comes(judge: Judge) -> None:
    loop = Loop(host("mlp"))
    grower = loop.grow(judge=judge, recipes=[Recipe.of("gated", ratio=2.0)])
    gc.collect()
    gc.disable()
    try:
        before = bytes_of_parameters()
        loop.run(60).until("rest")
        after, kept = bytes_of_parameters(), sum(graft.num_params for _, graft in all_grafts(loop.model))
    finally:
        gc.enable()
    assert any(event.kind == "cut" for event in grower.history if isinstance(event, Judged)) == judge.grafts
    assert after == before + 4 * kept


class Adversaries:
    """A generator that may grow, and a critic that keeps running statistics and a spectral norm's vectors."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 6))
        norm = torch.nn.utils.parametrizations.spectral_norm
        self.critic = nn.Sequential(
            norm(nn.Linear(6, 8)), nn.BatchNorm1d(8), nn.Dropout(0.1), nn.Linear(8, 1)
        )
        self.optimizers = adamw(self.model), adamw(self.critic)
        self.grower: Grower | None = None

    def losses(self, model: nn.Module, noise: Tensor) -> Tensor:
        return nn.functional.softplus(-self.critic(model(noise))).squeeze(1)

    def grow(self) -> Grower:
        batches = list(torch.randn(3, 16, 4, generator=torch.Generator().manual_seed(1)))
        self.grower = Grower(
            self.model,
            self.optimizers[0],
            evaluate=held_out(batches, per_example=self.losses),
            controller=Script(),
            judge=Stern(),
            recipes=[Recipe.of("mlp")],
            budget=ROOMY,
        )
        return self.grower

    def run(self, steps: int) -> dict[str, object]:
        for _ in range(steps):
            noise, real = torch.randn(8, 4), torch.randn(8, 6)
            fooled = self.critic(self.model(noise).detach())
            self._update(1, nn.functional.softplus(fooled - self.critic(real)).mean())
            self._update(0, self.losses(self.model, noise).mean())
            if self.grower is not None:
                self.grower.step(lambda noise=noise: self.losses(self.model, noise).mean())
        nets = (self.model, self.critic)
        return {
            "nets": copy.deepcopy([model_state(net) for net in nets]),
            "gradients": [p.grad for net in nets for p in net.parameters()],
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "streams": streams(),
        }

    def _update(self, which: int, loss: Tensor) -> None:
        self.optimizers[which].zero_grad()
        loss.backward()
        self.optimizers[which].step()


def test_refused_trials_of_a_generator_leave_its_critic_as_without_growth() -> None:
    expected = Adversaries().run(26)
    adversaries = Adversaries()
    grower = adversaries.grow()
    assert not difference(expected, adversaries.run(26))
    assert kinds(grower).count("Judged") >= 2


@pytest.mark.parametrize("kind", SOME)
def test_a_price_that_nothing_can_pay_leaves_no_trace(kind: Host) -> None:
    expected = state(Loop(kind).run(26))
    loop = Loop(kind)
    grower = loop.grow(judge=Judge(price=1e9, min_examples=2))
    assert not difference(expected, state(loop.run(26)))
    assert "Refused" in kinds(grower)


@pytest.mark.parametrize("kind", SOME)
def test_a_refused_cut_leaves_the_grown_model_as_it_trains_without_one(
    kind: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    def grown() -> Loop:
        loop = Loop(kind)
        loop.grow(
            judge=Stern(grafts=True), budget=Budget(params_ratio=None, grafts=1), recipes=[Recipe.of("mlp")]
        )
        return loop.run(34)

    loop = grown()
    assert loop.grower is not None
    assert [e.kind for e in loop.grower.history if type(e).__name__ == "Judged"][-1] == "cut"
    with_trial = state(loop)
    monkeypatch.setattr(course, "_can_be_cut", lambda *_: False)
    assert not difference(with_trial, state(grown()))


def test_refusal_leaves_no_trace_in_scheduler_scaler_and_averages() -> None:
    def with_everything() -> Loop:
        return Loop(
            host("resnet"),
            averaged=True,
            scaled=True,
            scheduler=lambda o: lr_scheduler.OneCycleLR(o, 0.05, 30),
        )

    expected = state(with_everything().run(26))
    loop = with_everything()
    grower = loop.grow()
    assert not difference(expected, state(loop.run(26)))
    assert "Judged" in kinds(grower)


def test_signals_and_scores_are_those_of_a_run_without_a_gradient_scaler() -> None:
    def told(scaled: bool) -> list[object]:
        loop = Loop(host("mlp"), scaled=scaled)
        evaluate = evaluation(loop.host)
        with pytest.warns(UserWarning, match="no gradients"):
            grower = loop.grow(evaluate=torch.no_grad()(evaluate))
        loop.run(12)
        return [event for event in grower.history if type(event).__name__ in ("Sensed", "Scored")]

    assert told(scaled=True) == told(scaled=False) != []


def test_bodies_and_optimizers_that_draw_random_numbers_do_not_move_the_streams() -> None:
    expected = state(Loop(host("mlp"), optimizer=Noisy.of).run(30))
    loop = Loop(host("mlp"), optimizer=Noisy.of)
    grower = loop.grow(recipes=[Recipe.of("noisy")])
    assert not difference(expected, state(loop.run(30)))
    assert "Judged" in kinds(grower)


def test_an_optimizer_of_the_users_own_keeps_its_private_state() -> None:
    expected = Loop(host("mlp"), optimizer=Noisy.of).run(30)
    loop = Loop(host("mlp"), optimizer=Noisy.of)
    loop.grow()
    loop.run(30)
    assert loop.optimizer.norms == expected.optimizer.norms


def test_sensing_leaves_accumulated_gradients_alone() -> None:
    def trained(grow: bool) -> Loop:
        loop = Loop(host("resnet"))
        batches = [loop.host.batch(seed) for seed in range(3)]
        grower = loop.grow() if grow else None
        for _ in range(24):
            loop.optimizer.zero_grad()
            for batch in batches:
                (loop.host.loss(loop.model, batch) / 3).backward()
            nn.utils.clip_grad_norm_(loop.model.parameters(), 0.5)
            loop.optimizer.step()
            if grower is not None:
                grower.step(lambda: loop.host.loss(loop.model, batches[-1]))
        assert grower is None or kinds(grower).count("Judged") == 2
        return loop

    assert not difference(state(trained(False)), state(trained(True)))


def test_gradients_that_wait_while_a_trial_runs_are_untouched() -> None:
    def trained(grow: bool) -> Loop:
        loop = Loop(host("transformer"))
        grower = loop.grow() if grow else None
        for step in range(24):
            batch = loop.host.batch(step)
            loop.host.loss(loop.model, batch).backward()
            loop.optimizer.step()
            if grower is not None:
                grower.step(lambda batch=batch: loop.host.loss(loop.model, batch))
            loop.optimizer.zero_grad(set_to_none=False)
        return loop

    assert not difference(state(trained(False)), state(trained(True)))


@pytest.mark.parametrize("kind", SOME)
def test_nothing_of_growth_is_in_a_resting_model(kind: Host) -> None:
    loop = Loop(kind)
    shape = structure(loop.model)
    grower = loop.grow(controller=Script(rounds=1))
    seen = set()
    for _ in range(24):
        loop.run(1)
        seen.add(grower.phase)
        if grower.phase in ("rest", "try", "over"):
            assert structure(loop.model) == shape
    assert seen == {"rest", "sense", "learn", "try", "over"}


@pytest.mark.parametrize("twin", [False, True], ids=["compiled", "compiled_twin"])
def test_growth_never_compiles_a_model_again_and_yet_reads_its_gradients(twin: bool) -> None:
    frames = []

    def counting(graph: torch.fx.GraphModule, _: list[Tensor]) -> object:
        frames.append(graph)
        return graph.forward

    torch._dynamo.reset()
    kind = host("mlp")
    plain = kind.make(0)
    model = torch.compile(plain, backend=counting)
    optimizer = adamw(model)
    grower = Grower(
        plain if twin else model,
        optimizer,
        evaluate=evaluation(kind),
        controller=Script(),
        judge=Stern(),
        recipes=[Recipe.of("mlp")],
        budget=ROOMY,
    )
    before: list[int] = []
    for step in range(24):
        batch = kind.batch(step)
        optimizer.zero_grad()
        kind.loss(model, batch).backward()
        optimizer.step()
        before.append(len(frames))
        grower.step(lambda batch=batch: kind.loss(model, batch))
    assert kinds(grower).count("Judged") == 2
    assert before == [before[0]] * 24
    scores = [s for e in grower.history if type(e).__name__ == "Scored" for s in e.scores]
    assert any(score.gain != 0 for score in scores), (
        "the candidates have learnt nothing from a compiled model"
    )


@pytest.mark.parametrize("kind", SOME)
def test_detaching_what_was_attached_gives_the_host_back(kind: Host) -> None:
    loop = Loop(kind)
    shape = structure(loop.model)
    loop.grow(judge=Lenient(), budget=Budget(params_ratio=None, grafts=1))
    loop.run(17)
    assert structure(loop.model) != shape
    before = {name: t for name, t in training_state(loop)["model"]["tensors"].items() if "grafts" not in name}
    for _, graft in all_grafts(loop.model):
        detach(loop.model, graft)
    assert structure(loop.model) == shape
    assert not difference(before, training_state(loop)["model"]["tensors"])


class Noisy(torch.optim.SGD):
    """A user's optimizer: gradient descent with noise, and a list of its own."""

    def __init__(self, params: object, lr: float) -> None:
        super().__init__(params, lr=lr)
        self.norms: list[float] = []

    @classmethod
    def of(cls, model: nn.Module) -> Noisy:
        return cls(model.parameters(), 0.01)

    def step(self, closure: None = None) -> None:
        super().step(closure)
        self.norms.append(
            sum(float(p.detach().norm()) for group in self.param_groups for p in group["params"])
        )
        for group in self.param_groups:
            for p in group["params"]:
                p.data.add_(torch.randn_like(p), alpha=1e-3)


def noisy(source: Port, target: Port) -> nn.Module:
    """A projection that draws random numbers while it trains."""
    last = nn.Linear(source.width, target.width)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(nn.Dropout(0.5), last)
