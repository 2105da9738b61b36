"""A run that is stopped anywhere, stored and built anew goes on with the losses of one that was never stopped."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from esper import Budget, Recipe
from esper.errors import CheckpointError
from esper.growth import checkpoint
from esper.growth.guard import random_state, set_random_state
from esper.growth.saved import load, save
from growth.loops import (
    PACE,
    Doubtful,
    Lenient,
    Loop,
    Script,
    difference,
    evaluation,
    kinds,
    state,
    structure,
    training_state,
)
from hosts import Host, host

STEPS = 46


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    decayed = [p for p in model.parameters() if p.dim() > 1]
    plain = [p for p in model.parameters() if p.dim() <= 1]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.SGD(groups, lr=0.01, momentum=0.9)


def cosine(optimizer: torch.optim.Optimizer) -> Any:
    return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)


def loop_of(kind: Host, *, cuts: bool, full: bool) -> Loop:
    options: dict[str, Any] = {"optimizer": sgd, "scheduler": cosine, "averaged": True} if full else {}
    loop = Loop(kind, **options)
    loop.grow(
        judge=Lenient(cuts=cuts), controller=Script(rounds=1), budget=Budget(params_ratio=None, grafts=1)
    )
    return loop


def stored(loop: Loop) -> dict[str, Any]:
    """What a user saves beside one another."""
    assert loop.grower is not None
    return {
        "growth": loop.grower.state_dict(),
        "model": dict(loop.model.state_dict()),
        "optimizer": loop.optimizer.state_dict(),
        "scheduler": None if loop.scheduler is None else loop.scheduler.state_dict(),
        "average": None if loop.average is None else dict(loop.average.state_dict()),
        "random": random_state(),
    }


def restore(loop: Loop, tree: dict[str, Any]) -> Loop:
    assert loop.grower is not None
    loop.grower.load_state_dict(tree["growth"])
    loop.model.load_state_dict(tree["model"])
    loop.optimizer.load_state_dict(tree["optimizer"])
    if loop.scheduler is not None:
        loop.scheduler.load_state_dict(tree["scheduler"])
    if loop.average is not None:
        loop.average.load_state_dict(tree["average"])
    set_random_state(tree["random"])
    return loop


def assert_resumes(
    kind: Host, folder: Path, wanted: set[str], *, cuts: bool = False, full: bool = False
) -> None:
    """Stop at the second step of each wanted phase ("guarded": at rest under guard); compare the rest of the run."""
    whole = loop_of(kind, cuts=cuts, full=full)
    assert whole.grower is not None
    stops: dict[str, int] = {}
    last = ""
    for step in range(1, STEPS + 1):
        whole.run_at_random(1)
        watching = whole.grower.state_dict()["guard"] is not None and whole.grower.phase == "rest"
        label = "guarded" if watching else whole.grower.phase
        if label == last and label in wanted - set(stops):
            stops[label] = step
            checkpoint.write(folder / label, stored(whole))
        last = label
    assert set(stops) == wanted
    for label, done in stops.items():
        again = restore(loop_of(kind, cuts=cuts, full=full), checkpoint.read(folder / label))
        assert again.grower is not None
        again.run_at_random(STEPS - done)
        assert again.losses == whole.losses[done:], label
        assert again.grower.history == whole.grower.history
        assert not difference(training_state(whole), training_state(again)), label


def test_every_phase_of_a_run_with_averages_a_scheduler_and_groups_resumes_to_the_bit(tmp_path: Path) -> None:
    phases = {"rest", "sense", "learn", "try", "trim", "guarded"}
    assert_resumes(host("mlp"), tmp_path, phases, full=True)


def test_a_second_look_at_an_unsettled_gain_resumes_to_the_bit(tmp_path: Path) -> None:
    def started() -> Loop:
        loop = Loop(host("mlp"))
        loop.grow(judge=Doubtful(tests=4), controller=Script(num_trials=2))
        return loop

    whole = started()
    assert whole.grower is not None
    while not kinds(whole.grower).count("Judged"):
        whole.run_at_random(1)
    whole.run_at_random(2)
    assert whole.grower.phase == "try"
    checkpoint.write(tmp_path, stored(whole))
    done = len(whole.losses)
    whole.run_at_random(20)
    again = restore(started(), checkpoint.read(tmp_path))
    again.run_at_random(20)
    assert again.grower is not None
    assert again.losses == whole.losses[done:]
    assert again.grower.history == whole.grower.history


def test_a_run_that_has_cut_a_path_resumes_to_the_bit(tmp_path: Path) -> None:
    assert_resumes(host("mlp"), tmp_path, {"trim", "over"}, cuts=True, full=True)


@pytest.mark.parametrize(
    "name", ["batchnorm_cnn", "lstm", "language_model", "branches", "conv1d", "autocast"]
)
def test_every_kind_of_host_resumes_in_the_middle_of_growth(name: str, tmp_path: Path) -> None:
    assert_resumes(host(name), tmp_path, {"learn", "try"})


def test_scores_of_an_evaluation_without_gradients_resume_to_the_bit(tmp_path: Path) -> None:
    def started() -> Loop:
        loop = Loop(host("mlp"))
        held_out = evaluation(loop.host)
        with pytest.warns(UserWarning, match="no gradients"):
            loop.grow(
                evaluate=lambda model: held_out(model).detach(),
                controller=Script(times=replace(PACE, shadow=20)),
            )
        return loop

    whole = started()
    assert whole.grower is not None
    while whole.grower.phase != "try":
        phase = whole.grower.state_dict()["phase"]
        if phase["name"] == "learn" and phase["unfitted"]:
            break
        whole.run_at_random(1)
    else:
        pytest.fail("no pairs were kept aside")
    checkpoint.write(tmp_path, stored(whole))
    done = len(whole.losses)
    whole.run_at_random(12)
    again = restore(started(), checkpoint.read(tmp_path)).run_at_random(12)
    assert again.losses == whole.losses[done:]
    assert again.grower is not None
    assert again.grower.history == whole.grower.history
    scored = next(event for event in again.grower.history if type(event).__name__ == "Scored")
    assert not any(score.held_out for score in scored.scores)


def test_the_state_of_another_architecture_is_refused_and_the_model_stays_as_it_was(tmp_path: Path) -> None:
    for steps in (1, 20):
        checkpoint.write(tmp_path, stored(loop_of(host("mlp"), cuts=False, full=False).run_at_random(steps)))
        other = Loop(host("in_place"))
        other.grow()
        before, shape = state(other), structure(other.model)
        assert other.grower is not None
        with pytest.raises(CheckpointError, match="build the model with the arguments"):
            other.grower.load_state_dict(checkpoint.read(tmp_path)["growth"])
        assert not difference(before, state(other))
        assert shape == structure(other.model)


def test_a_foreign_tree_a_newer_format_and_a_grown_model_are_refused() -> None:
    loop = loop_of(host("mlp"), cuts=False, full=False).run_at_random(20)
    assert loop.grower is not None
    saved = loop.grower.state_dict()
    fresh = loop_of(host("mlp"), cuts=False, full=False).grower
    assert fresh is not None
    with pytest.raises(CheckpointError, match="pass what grower"):
        fresh.load_state_dict({"weights": 1})
    with pytest.raises(CheckpointError, match="install a newer esper"):
        fresh.load_state_dict(saved | {"format": 2})
    with pytest.raises(CheckpointError, match="fresh instance"):
        loop.grower.load_state_dict(saved)


@pytest.mark.parametrize("finished", [False, True], ids=["growing", "finished"])
@pytest.mark.parametrize("cuts", [False, True], ids=["grafted", "cut"])
@pytest.mark.parametrize("name", ["mlp", "batchnorm_cnn", "lstm", "branches", "shared", "autocast"])
def test_a_grown_checkpoint_loads_into_a_fresh_instance(
    name: str, cuts: bool, finished: bool, tmp_path: Path
) -> None:
    loop = loop_of(host(name), cuts=cuts, full=False).run_at_random(28)
    assert loop.grower is not None
    assert "Attached" in kinds(loop.grower)
    if finished:
        loop.grower.finish()
    checkpoint.write(tmp_path, stored(loop))
    tree = checkpoint.read(tmp_path)
    again = loop_of(host(name), cuts=cuts, full=False)
    assert again.grower is not None
    again.grower.load_state_dict(tree["growth"])
    again.model.load_state_dict(tree["model"])
    batch = loop.host.batch(77)
    loop.model.eval()
    again.model.eval()
    assert torch.equal(loop.host.forward(loop.model, batch[0]), loop.host.forward(again.model, batch[0]))


@pytest.mark.parametrize("phase", ["learn", "try"])
@pytest.mark.parametrize("options", [{"recipes": [Recipe.of("mlp", ratio=7.0)]}, {"sites": ["0"]}])
def test_a_round_under_way_needs_the_recipes_and_sites_that_it_began_with(
    phase: str, options: dict[str, Any]
) -> None:
    loop = Loop(host("mlp"))
    saved = loop.grow(controller=Script(), judge=Lenient())
    loop.run(20).until(phase)
    assert "Attached" in kinds(saved)
    other = Loop(host("mlp"))
    grower, before = other.grow(**options), structure(other.model)
    with pytest.raises(
        CheckpointError, match="which this grower does not offer: give Grower the recipes, sites"
    ):
        grower.load_state_dict(saved.state_dict())
    assert structure(other.model) == before
    assert (grower.record, grower.history, grower.phase) == ([], (), "rest")


def test_finishing_a_run_that_was_stored_finished_does_nothing() -> None:
    loop = loop_of(host("mlp"), cuts=False, full=False).run_at_random(28)
    assert loop.grower is not None
    loop.grower.finish()
    again = restore(loop_of(host("mlp"), cuts=False, full=False), stored(loop))
    assert again.grower is not None
    before, shape = state(again), structure(again.model)
    assert again.grower.finish() is again.model
    assert again.grower.record == loop.grower.record
    assert again.grower.history == loop.grower.history
    assert not difference(before, state(again))
    assert shape == structure(again.model)


@pytest.mark.parametrize("finished", [False, True], ids=["growing", "finished"])
def test_a_saved_model_loads_without_a_grower(finished: bool, tmp_path: Path) -> None:
    loop = loop_of(host("mlp"), cuts=True, full=False).run_at_random(28)
    assert loop.grower is not None
    if finished:
        loop.grower.finish()
    save(tmp_path, loop.model, loop.grower)
    again = load(tmp_path, loop.host.make(5))
    x = loop.host.batch(77)[0]
    assert torch.equal(loop.host.forward(loop.model, x), loop.host.forward(again, x))
    with pytest.raises(CheckpointError, match="model"):
        load(tmp_path, host("conv1d").make(0))
    checkpoint.write(tmp_path / "other", {"weights": 1})
    with pytest.raises(CheckpointError, match=r"no model saved by esper\.save"):
        load(tmp_path / "other", loop.host.make(0))
