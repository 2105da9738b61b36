"""What held-out data show to be of no use goes after growth, and what is refused leaves no trace."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim import lr_scheduler

import esper
from esper import Budget
from esper.controller.judge import Stake, Verdict
from esper.errors import ConfigurationError
from esper.events import Folded, Judged, Merged, Pruned
from esper.growth.decisions import settled
from esper.growth.guard import Guard
from esper.growth.telling import stake_of
from esper.recipe import Recipe
from esper.surgery.graft import all_grafts
from esper.surgery.isolation import isolated
from growth.loops import (
    MLP,
    PACE,
    Lenient,
    Loop,
    Script,
    difference,
    evaluation,
    kinds,
    model_state,
    same,
    state,
    training_state,
)
from growth.test_resume import restore, stored
from hosts import Host, host
from surgery.places import outputs

ONE = Budget(params_ratio=None, grafts=1)
TWO = Budget(params_ratio=None, grafts=2)
PRUNING = Script(rounds=1, times=replace(PACE, prunings=2, prune_every=5))
NAMES = ("mlp", "batchnorm_cnn", "lstm", "branches", "counters")
SOME = [pytest.param(host(name), id=name) for name in NAMES]


@pytest.fixture(autouse=True)
def _briefly_watchful(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Guard, "EVERY", 2)
    monkeypatch.setattr(Guard, "WATCH", 4)


@dataclass(frozen=True)
class Pruner(Lenient):
    """Accepts every graft and every pruning, or none."""

    prunings: bool = True

    def prune(self, *args: Any, **options: Any) -> Verdict:
        return replace(super().prune(*args, **options), accepted=self.prunings)


@dataclass(frozen=True)
class First(Lenient):
    """Accepts every graft, and of two that might be pruned the one that is missed least."""

    asked: list[int] = field(default_factory=list)

    def prune(self, *args: Any, looks: int, **options: Any) -> Verdict:
        self.asked.append(looks)
        accepted = looks == 2 and len(self.asked) <= 3
        return replace(super().prune(*args, looks=looks, **options), accepted=accepted)


def grown(kind: Host, *, steps: int = 0, looped: dict[str, Any] | None = None, **options: Any) -> Loop:
    """A loop that attaches one graft or two, closes growth, and prunes after five steps and after ten."""
    loop = Loop(kind, **(looped or {}))
    loop.grow(**({"controller": PRUNING, "judge": Pruner(), "budget": ONE, "recipes": [MLP]} | options))
    loop.until("prune")
    return loop.run(steps)


def test_a_kept_graft_that_is_of_no_use_goes_and_leaves_every_other_tensor_as_it_is() -> None:
    loop = grown(host("mlp"), looped={"averaged": True})
    grower = loop.grower
    assert grower is not None
    loop.grower = None
    batch = loop.host.batch(0)
    for _ in range(20):
        if "Pruned" in kinds(grower):
            break
        loop.step(batch)
        before = {n: t.detach().clone() for n, t in loop.model.named_parameters() if "grafts" not in n}
        grower.step(lambda: loop.host.loss(loop.model, batch))
    assert all_grafts(loop.model) == []
    assert all_grafts(loop.average) == []
    assert same(before, {n: t.detach() for n, t in loop.model.named_parameters()})
    own = {id(p) for p in loop.model.parameters()}
    assert {id(p) for group in loop.optimizer.param_groups for p in group["params"]} == own
    assert {id(p) for p in loop.optimizer.state} <= own
    assert grower.size.params == sum(p.numel() for p in loop.model.parameters())
    assert grower.size.macs == grower.sites().macs


@pytest.mark.parametrize("kind", SOME)
def test_refused_prunings_leave_the_trajectory_of_a_run_without(kind: Host) -> None:
    with_trials = grown(kind, judge=Pruner(prunings=False), steps=14)
    without = Loop(kind)
    without.grow(controller=PRUNING, judge=Pruner(), budget=ONE, recipes=[MLP], prune="nothing")
    without.run(len(with_trials.losses))
    assert [e.kind for e in with_trials.grower.history if isinstance(e, Judged)].count("prune") == 2
    assert not difference(state(without), state(with_trials))
    assert with_trials.grower.finished


def test_each_graft_is_judged_with_those_before_it_gone_against_the_same_losses() -> None:
    loop = grown(host("mlp"), budget=TWO)
    evaluate, left = evaluation(loop.host), list[float]()
    loop.grower.on_event(
        lambda event: left.append(measured(evaluate, loop)) if isinstance(event, Pruned) else None
    )
    loop.run(12)
    judged = [event for event in loop.grower.history if isinstance(event, Judged) and event.kind == "prune"]
    assert [event.host_loss - event.gain for event in judged] == pytest.approx(left)
    assert judged[0].host_loss == judged[1].host_loss


def measured(evaluate: Any, loop: Loop) -> float:
    with isolated(loop.model, eval_mode=True):
        return float(evaluate(loop.model).detach().mean())


def test_the_only_path_of_a_site_that_was_cut_is_never_pruned() -> None:
    loop = Loop(host("mlp"))
    loop.grow(controller=PRUNING, judge=Pruner(cuts=True), budget=ONE, recipes=[MLP])
    loop.until("over")
    assert "Cut" in kinds(loop.grower)
    assert "Pruned" not in kinds(loop.grower)
    assert len(all_grafts(loop.model)) == 1


def test_nothing_is_pruned_while_the_guard_watches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Guard, "WATCH", 20)
    loop = grown(host("mlp"), steps=30)
    attached = next(event.step for event in loop.grower.history if type(event).__name__ == "Attached")
    pruned = next(event.step for event in loop.grower.history if isinstance(event, Pruned))
    assert pruned >= attached + 20


def test_a_run_that_was_interrupted_between_prunings_goes_on_as_if_it_had_not_been() -> None:
    def make() -> Loop:
        loop = Loop(host("mlp"), averaged=True, scheduler=lambda o: lr_scheduler.LinearLR(o, 1.0, 0.5, 60))
        loop.grow(controller=PRUNING, recipes=[MLP], budget=TWO, judge=First())
        return loop

    whole = make()
    whole.until("prune")
    for _ in range(20):
        if "Pruned" in kinds(whole.grower):
            break
        whole.run_at_random(1)
    assert (whole.grower.phase, len(all_grafts(whole.model))) == ("prune", 1)
    tree, done = copy.deepcopy(stored(whole)), len(whole.losses)
    whole.run_at_random(12)
    again = restore(make(), tree).run_at_random(12)
    assert again.losses == whole.losses[done:]
    assert again.grower.history == whole.grower.history
    assert not difference(training_state(whole), training_state(again))


def test_a_model_without_a_pruned_graft_is_loaded_into_a_fresh_instance(tmp_path: Path) -> None:
    loop = grown(host("mlp"), budget=TWO, judge=First(), steps=8)
    assert len(all_grafts(loop.model)) == 1
    esper.save(tmp_path, loop.model, loop.grower)
    fresh = esper.load(tmp_path, loop.host.make(1))
    assert same(model_state(loop.model)["tensors"], model_state(fresh)["tensors"])


def test_a_linear_graft_melts_into_its_layer_which_keeps_its_optimizer_state(tmp_path: Path) -> None:
    loop = grown(host("mlp"), recipes=[Recipe.of("lora")], sites=["0", "2", "4"], looped={"averaged": True})
    ((_, graft),) = all_grafts(loop.model)
    layer = loop.model.get_submodule(graft.site.exit)
    momentum = loop.optimizer.state[layer.weight]["exp_avg"]
    before = [outputs(loop.host, model) for model in (loop.model, loop.average.module)]
    loop.grower.finish()
    after = [outputs(loop.host, model) for model in (loop.model, loop.average.module)]
    torch.testing.assert_close(before, after)
    assert loop.model.get_submodule(graft.site.exit) is layer
    assert type(layer) is torch.nn.Linear
    assert loop.optimizer.state[layer.weight]["exp_avg"] is momentum
    assert {id(p) for g in loop.optimizer.param_groups for p in g["params"]} == set(
        map(id, loop.model.parameters())
    )
    assert [type(event) for event in loop.grower.history[-2:]] == [Merged, Folded]
    assert loop.grower.size.params == loop.grower.sites().params == loop.grower.history[-1].total_params
    esper.save(tmp_path, loop.model, loop.grower)
    assert same(outputs(loop.host, esper.load(tmp_path, loop.host.make(1))), after[0])


def test_every_verdict_on_a_pruning_is_a_decision_to_remember() -> None:
    loop = grown(host("mlp"), budget=TWO, judge=First(), steps=14)
    history = loop.grower.history
    decisions = [d for end in range(1, len(history) + 1) for d in settled(history[:end]) if d.kind == "prune"]
    assert [decision.result for decision in decisions] == ["kept", "refused", "refused"]
    assert all(decision.judged.kind == "prune" for decision in decisions)


def test_an_unknown_word_for_what_may_be_pruned_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="nothing, grafts, all"):
        Loop(host("mlp")).grow(prune="some")


def test_what_one_session_may_have_cost_is_not_there_for_the_next() -> None:
    loop = grown(host("mlp"), budget=TWO, judge=First())
    work = loop.grower._work
    assert stake_of(work) == Stake(spent=0.0, sessions=2)
    for _ in range(20):
        loop.run(1)
        if "Pruned" in kinds(loop.grower):
            break
    upper = next(event.upper for event in loop.grower.history if isinstance(event, Pruned))
    assert upper > 0
    loop.run(1)
    assert stake_of(work) == Stake(spent=upper, sessions=1)
