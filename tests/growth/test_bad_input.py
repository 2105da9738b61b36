"""What a caller may get wrong: a clear error that says what to do, and nothing is lost."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from esper import Budget, Grower, Judge, Recipe, Rules, blueprint
from esper.blueprints import catalogue
from esper.errors import ClosureError, ConfigurationError, EsperError, EvaluateError, RecipeError, SiteError
from esper.surgery.site import Port
from growth.loops import (
    MLP,
    Lenient,
    Loop,
    Script,
    adamw,
    difference,
    evaluation,
    kinds,
    state,
    structure,
)
from hosts import host

Spoil = Callable[[Tensor], Any]


@pytest.fixture(autouse=True)
def _own_blueprints(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "_blueprints", dict(catalogue._blueprints))
    blueprint("stillborn", pairs=[("vector", "vector")])(stillborn)
    blueprint("loud", pairs=[("vector", "vector")])(loud)


def held_out_of(spoil: Spoil) -> Callable[[nn.Module], Any]:
    evaluate = evaluation(host("mlp"))
    return lambda model: spoil(evaluate(model))


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"evaluate": held_out_of(lambda x: x.mean())}, EvaluateError, r"shape \(\).*held_out\(loader"),
        (
            {"evaluate": held_out_of(lambda x: x[:, None])},
            EvaluateError,
            r"shape \(16, 1\).*one loss per held-out",
        ),
        ({"evaluate": held_out_of(lambda x: x.tolist())}, EvaluateError, "list"),
        (
            {"evaluate": held_out_of(lambda x: x * float("nan"))},
            EvaluateError,
            "mend the model or the data first",
        ),
        ({"judge": Judge()}, EvaluateError, "16 held-out examples are too few.*hold out more"),
        ({"evaluate": lambda _: torch.ones(16, requires_grad=True)}, SiteError, r"as in model\(inputs\)"),
        ({"total_steps": 0}, ConfigurationError, "total_steps must be at least 1"),
        ({"sites": ["no.such"]}, SiteError, r"no site matches 'no.such'; there are .*print\(grower.sites"),
        ({"recipes": [Recipe.of("conv2d")]}, RecipeError, "none of the recipes fits"),
        ({"recipes": [Recipe.of("nothing")]}, RecipeError, "there is no blueprint 'nothing'"),
        ({"recipes": [Recipe.of("stillborn")]}, RecipeError, "stillborn is refused.*is dead"),
        ({"recipes": [Recipe.of("loud")]}, RecipeError, "loud is refused.*make the last projection zero"),
    ],
)
def test_a_grower_that_cannot_be_is_refused_and_the_model_stays_as_it_was(
    options: dict[str, Any], error: type[EsperError], words: str
) -> None:
    loop = Loop(host("mlp")).run(2)
    before, shape = state(loop), structure(loop.model)
    with pytest.raises(error, match=words):
        loop.grow(**options)
    assert not difference(before, state(loop))
    assert shape == structure(loop.model)


def test_a_blueprint_that_is_declared_anew_is_checked_anew() -> None:
    recipes = [Recipe.of("newcomer")]
    blueprint("newcomer", pairs=[("vector", "vector")])(modest)
    Loop(host("mlp")).grow(recipes=recipes)
    del catalogue._blueprints["newcomer"]
    blueprint("newcomer", pairs=[("vector", "vector")])(stillborn)
    with pytest.raises(RecipeError, match="is dead"):
        Loop(host("mlp")).grow(recipes=recipes)


@pytest.mark.parametrize("enabled", [True, False])
def test_the_garbage_collector_is_left_as_it_was_also_after_an_error(enabled: bool) -> None:
    was_on = gc.isenabled()
    (gc.enable if enabled else gc.disable)()
    try:
        with pytest.raises(EvaluateError):
            Loop(host("mlp")).grow(evaluate=held_out_of(lambda x: x.mean()))
        assert gc.isenabled() is enabled
    finally:
        (gc.enable if was_on else gc.disable)()


@pytest.mark.parametrize("name", ["params_ratio", "macs_ratio", "params", "macs", "grafts"])
def test_a_budget_of_nothing_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{name} must be above zero, got 0; None means no limit"):
        Budget(**{name: 0})


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Rules(trial=0), "at least 1"),
        (lambda: Rules(close=0.0), "above 0 and at most 1"),
        (lambda: Judge(alpha=0.0), "between 0 and 1"),
        (lambda: Judge(min_examples=1), "min_examples >= 2"),
    ],
)
def test_settings_that_make_no_sense_are_refused(make: Callable[[], object], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        make()


def backward(loop: Loop) -> Tensor:
    loss = batch_loss(loop)
    loss.backward(retain_graph=True)
    return loss


def optimizer_step(loop: Loop) -> Tensor:
    loss = batch_loss(loop)
    loss.backward(retain_graph=True)
    loop.optimizer.step()
    return loss


def in_place(loop: Loop) -> Tensor:
    with torch.no_grad():
        next(loop.model.parameters()).mul_(1.01)
    return batch_loss(loop)


def batch_loss(loop: Loop) -> Tensor:
    return loop.host.loss(loop.model, loop.host.batch(0))


def other_model(loop: Loop) -> Tensor:
    return loop.host.loss(loop.host.make(1), loop.host.batch(0))


CLOSURES: dict[str, tuple[Callable[[Loop], Any], str]] = {
    "backward": (backward, r"leave backward\(\) and optimizer.step\(\) outside of it"),
    "optimizer_step": (optimizer_step, "Everything has been put back"),
    "in_place": (in_place, r"changed 0\.weight"),
    "float": (lambda loop: batch_loss(loop).item(), "must return the scalar loss"),
    "detached": (lambda loop: batch_loss(loop).detach(), "with its graph"),
    "vector": (lambda loop: loop.host.loss(loop.model, loop.host.batch(0), reduction="none"), "scalar loss"),
    "other_model": (other_model, "repeat the forward pass of the model that is grown"),
}


@pytest.mark.parametrize("name", CLOSURES)
def test_a_closure_that_does_other_things_is_refused_and_nothing_is_lost(name: str) -> None:
    closure, words = CLOSURES[name]
    expected = state(Loop(host("mlp")).run(24))
    loop = Loop(host("mlp"))
    grower = loop.grow()
    loop.until("try")
    before, shape = state(loop), structure(loop.model)
    with pytest.raises(ClosureError, match=words):
        grower.step(lambda: closure(loop))
    assert not difference(before, state(loop))
    assert shape == structure(loop.model)
    loop.run(24 - len(loop.losses))
    assert not difference(expected, state(loop))
    assert "Judged" in kinds(grower)


def test_a_step_without_a_closure_says_how_to_write_one() -> None:
    grower = Loop(host("mlp")).grow()
    with pytest.raises(ClosureError, match=r"grower\.step\(lambda: loss_fn\(model\(inputs\), targets\)\)"):
        grower.step()


def test_a_closure_that_raises_leaves_everything_as_it_was() -> None:
    loop = Loop(host("counters"))
    grower = loop.grow()
    loop.until("try")
    before = state(loop)

    def broken() -> Tensor:
        batch_loss(loop)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        grower.step(broken)
    assert not difference(before, state(loop))


@pytest.mark.parametrize("at", [1, 5], ids=["early", "late"])
def test_a_loss_that_is_not_finite_ends_the_trial_and_nothing_else(at: int) -> None:
    expected = state(Loop(host("mlp")).run(30))
    loop = Loop(host("mlp"))
    grower = loop.grow(judge=Lenient(), controller=Script(rounds=1))
    trials = 0

    def spoilt(batch: Any) -> Callable[[], Tensor]:
        return lambda: loop.host.loss(loop.model, batch) * (float("inf") if trials == at else 1.0)

    loop.grower = None
    for batch in loop.batches(30):
        loop.step(batch)
        trials += grower.phase == "try"
        grower.step(spoilt(batch))
    assert not difference(expected, state(loop))
    reasons = [event.reason for event in grower.history if type(event).__name__ == "Refused"]
    assert reasons
    assert set(reasons) == {"its loss became infinite or undefined"}


@dataclass
class Fickle:
    """An evaluation that changes its mind after some calls."""

    then: Spoil
    after: int
    calls: int = 0

    def __post_init__(self) -> None:
        self.evaluate = evaluation(host("mlp"))

    def __call__(self, model: nn.Module) -> Any:
        self.calls += 1
        losses = self.evaluate(model)
        return self.then(losses) if self.calls > self.after else losses


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda x: x.mean(), r"shape \(\)"),
        (lambda x: x[1:], "16 losses at first and 15 now.*the same examples"),
    ],
    ids=["scalar", "fewer"],
)
def test_an_evaluation_that_changes_during_the_run_is_refused_and_nothing_is_lost(
    spoil: Spoil, words: str
) -> None:
    loop = Loop(host("mlp"))
    evaluate = Fickle(spoil, after=10**9)
    loop.grow(evaluate=evaluate)
    loop.until("try")
    evaluate.after = 0
    shape = structure(loop.model)
    with pytest.raises(EvaluateError, match=words):
        loop.run(10)
    plain = Loop(host("mlp")).run(len(loop.losses))
    assert not difference(state(plain)["training"]["model"], state(loop)["training"]["model"])
    assert shape == structure(loop.model)


def test_held_out_losses_that_become_undefined_refuse_the_trial() -> None:
    loop = Loop(host("mlp"))
    evaluate = Fickle(lambda x: x * float("nan"), after=10**9)
    grower = loop.grow(evaluate=evaluate, judge=Judge(min_examples=2))
    loop.until("try")
    evaluate.after = 0
    loop.run(7)
    assert "Refused" in kinds(grower)
    assert "Attached" not in kinds(grower)


def test_training_another_model_than_the_one_given_ends_growth_with_a_warning() -> None:
    loop = Loop(host("mlp"))
    grower = loop.grow()
    loop.model = loop.host.make(1)
    loop.optimizer = adamw(loop.model)
    with pytest.warns(UserWarning, match="train the very model that was given to Grower") as warned:
        loop.run(10)
    assert warned[0].filename == loop.grow.__code__.co_filename
    assert grower.finished


def test_an_evaluation_without_gradients_is_warned_of_once() -> None:
    loop = Loop(host("mlp"))
    evaluate = evaluation(loop.host)
    with pytest.warns(UserWarning, match="evaluate gives no gradients") as warned:
        grower = loop.grow(evaluate=torch.no_grad()(evaluate), judge=Lenient())
    assert len(warned) == 1
    assert warned[0].filename == loop.grow.__code__.co_filename
    loop.run(30)  # where a second warning would be an error
    scores = [score for event in grower.history if type(event).__name__ == "Scored" for score in event.scores]
    assert scores
    assert not any(score.held_out for score in scores)
    assert any(score.gain != 0 for score in scores)
    assert "Attached" in kinds(grower)


class Named(nn.Module):
    """A layer of the user's own that has a child called grafts."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(6, 6) * 0.3)
        self.grafts = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight + self.grafts(x)


def test_a_layer_with_something_named_grafts_is_left_alone_and_the_rest_grows() -> None:
    kind = host("mlp")
    torch.manual_seed(0)
    model = nn.Sequential(Named(), nn.ReLU(), nn.Linear(6, 3))
    optimizer: Optimizer = adamw(model)
    grower = Grower(
        model,
        optimizer,
        evaluate=evaluation(kind),
        judge=Lenient(),
        controller=Script(proposals=50),
        recipes=[MLP],
    )
    notes = {row.module: row.note for row in grower.sites()}
    assert "rename" in notes["0"]
    for step in range(40):
        batch = kind.batch(step)
        optimizer.zero_grad()
        kind.loss(model, batch).backward()
        optimizer.step()
        grower.step(lambda batch=batch: kind.loss(model, batch))
    assert "Attached" in kinds(grower)
    assert isinstance(model[0].grafts, nn.Linear)


def test_a_controller_that_keeps_nothing_only_ends_the_round() -> None:
    class Shy(Script):
        def halve(self, *_: Any) -> list[str]:
            return []

    expected = state(Loop(host("mlp")).run(30))
    loop = Loop(host("mlp"))
    grower = loop.grow(controller=Shy())
    assert not difference(expected, state(loop.run(30)))
    assert "Refused" in kinds(grower)


def modest(source: Port, target: Port) -> nn.Module:
    last = nn.Linear(source.width, target.width)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return last


def stillborn(source: Port, target: Port) -> nn.Module:
    """Ends in a rectifier behind a zero projection: no gradient will ever reach it."""
    return nn.Sequential(modest(source, target), nn.ReLU())


def loud(source: Port, target: Port) -> nn.Module:
    """Changes the output from the first step on."""
    return nn.Linear(source.width, target.width)


@pytest.mark.parametrize(
    ("options", "error", "advice"),
    [
        ({"evaluate": [torch.zeros(3)]}, EvaluateError, "use esper.held_out"),
        ({"recipes": ["mlp"]}, RecipeError, "write esper.Recipe.of"),
    ],
)
def test_what_is_of_the_wrong_type_says_what_to_give(
    options: dict[str, object], error: type[Exception], advice: str
) -> None:
    with pytest.raises(error, match=advice):
        Loop(host("mlp")).grow(**options)


def test_a_loss_in_the_place_of_the_closure_is_refused() -> None:
    loop = Loop(host("mlp"))
    grower = loop.grow()
    with pytest.raises(ClosureError, match="needs a closure"):
        grower.step(torch.zeros(()))  # type: ignore[arg-type]


@pytest.mark.parametrize("shared", ["model", "optimizer"])
def test_a_second_grower_of_the_same_model_or_optimizer_is_refused_until_the_first_is_finished(
    shared: str,
) -> None:
    loop, other = Loop(host("mlp")), Loop(host("mlp"))
    first = loop.grow()
    if shared == "model":
        other.model = loop.model
        other.optimizer = adamw(loop.model)
    else:
        other.optimizer = loop.optimizer
        other.optimizer.add_param_group({"params": list(other.model.parameters())})
    with pytest.raises(ConfigurationError, match=f"another Grower, not finished yet, grows this {shared}"):
        other.grow()
    first.finish()
    other.grow()


def test_a_grower_that_nobody_holds_any_more_is_no_hindrance() -> None:
    loop = Loop(host("mlp"))
    loop.grow()
    loop.grower = None
    loop.grow()
