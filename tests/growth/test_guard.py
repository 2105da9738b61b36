"""A graft that goes wrong after it was attached is taken out again, and everything is as it was at the snapshot."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch.optim import lr_scheduler

from esper import Budget
from esper.controller.judge import Verdict
from esper.controller.rules import Pace
from esper.events import RolledBack
from esper.growth import checkpoint
from esper.growth.guard import Guard, random_state, set_random_state
from esper.growth.training import Training
from esper.surgery.graft import all_cuts, all_grafts
from growth.loops import (
    MLP,
    RECIPES,
    Lenient,
    Loop,
    Script,
    difference,
    kinds,
    same,
    structure,
    training_state,
)
from hosts import Host, host

NAMES = ("mlp", "batchnorm_cnn", "lstm", "branches", "shared", "counters", "spectral", "autocast")
HOSTS = [pytest.param(host(name), id=name) for name in NAMES]
ONE = Budget(params_ratio=None, grafts=1)


@pytest.fixture(autouse=True)
def _watchful(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Guard, "EVERY", 5)
    monkeypatch.setattr(Guard, "WATCH", 15)


class Watched:
    """A loop with everything that a guard puts back, which notes the state just before every growth step."""

    def __init__(self, kind: Host, **options: Any) -> None:
        self.loop = Loop(
            kind, averaged=True, scaled=True, scheduler=lambda o: lr_scheduler.LinearLR(o, 1.0, 0.5, 40)
        )
        self.shape = structure(self.loop.model)
        self.grower = self.loop.grow(**({"judge": Lenient(), "budget": ONE} | options))
        self.loop.grower = None
        self.states: list[dict[str, Any]] = []

    def step(self) -> None:
        batch = self.loop.host.batch(int(torch.randint(9, ())))
        self.loop.step(batch)
        self.states.append(training_state(self.loop))
        self.grower.step(lambda: self.loop.host.loss(self.loop.model, batch))

    def run(self, steps: int) -> None:
        for _ in range(steps):
            self.step()

    def until(self, event: str, *, limit: int = 60) -> None:
        for _ in range(limit):
            if event in kinds(self.grower):
                return
            self.step()
        pytest.fail(f"no {event} within {limit} steps")

    def poison(self) -> None:
        *_, (_, graft) = all_grafts(self.loop.model)
        with torch.no_grad():
            for parameter in graft.parameters():
                parameter.fill_(float("nan"))

    def assert_undone(self) -> None:
        """The model is that of the snapshot, which was taken before the growth step that attached."""
        event = self.grower.history[-1]
        assert isinstance(event, RolledBack)
        assert not difference(self.states[event.to_step - 1], training_state(self.loop))
        assert structure(self.loop.model) == self.shape


@pytest.mark.parametrize("kind", HOSTS)
def test_a_graft_that_turns_undefined_is_undone_to_the_bit(kind: Host) -> None:
    watched = Watched(kind)
    watched.until("Attached")
    size = watched.grower.size
    watched.poison()
    with pytest.warns(UserWarning, match="growth undone: the held-out loss went to nan"):
        watched.until("RolledBack")
    watched.assert_undone()
    assert watched.grower.size.params == sum(p.numel() for p in watched.loop.model.parameters()) < size.params
    assert watched.grower.state_dict()["guard"] is None


class Alike:
    """A host as the guard asks it: its held-out losses have the given mean, and hardly any spread."""

    mean = 0.7

    def losses(self) -> np.ndarray:
        return self.mean + 0.001 * np.sin(np.arange(50.0))


@pytest.mark.parametrize(("later", "exploded"), [(2.7, False), (2.9, True), (float("inf"), True)])
def test_losses_that_are_all_alike_have_exploded_when_they_are_four_times_what_they_were(
    later: float, exploded: bool
) -> None:
    model, asked = torch.nn.Linear(2, 2), Alike()
    guard = Guard(Training(model, torch.optim.SGD(model.parameters(), lr=0.1)), cast(Any, asked))
    guard.before_attach(0)
    asked.mean = later
    assert (guard.trouble(Guard.EVERY) is not None) == exploded


def test_a_learning_rate_that_explodes_is_undone_with_everything_else() -> None:
    watched = Watched(host("mlp"))
    watched.until("Attached")
    watched.loop.optimizer.param_groups[0]["lr"] = 50.0
    watched.loop.scheduler.base_lrs = [50.0]
    with pytest.warns(UserWarning, match="growth undone"):
        watched.until("RolledBack")
    watched.assert_undone()
    assert watched.loop.optimizer.param_groups[0]["lr"] < 0.011


@pytest.mark.parametrize("phase", ["sense", "learn", "try"])
def test_a_rollback_in_the_middle_of_the_next_round_leaves_no_hook(
    phase: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Guard, "WATCH", 100)
    watched = Watched(host("mlp"), recipes=[MLP], budget=Budget(params_ratio=None))
    watched.until("Attached")
    while watched.grower.phase in ("trim", "rest"):
        watched.step()
    for _ in range(30):
        if watched.grower.phase == phase:
            break
        watched.step()
    watched.poison()
    with pytest.warns(UserWarning, match="growth undone"):
        watched.until("RolledBack")
    watched.assert_undone()


def test_the_run_goes_on_after_a_rollback_and_may_grow_again() -> None:
    watched = Watched(host("mlp"), recipes=[MLP], controller=Script(num_trials=1))
    watched.until("Attached")
    watched.poison()
    with pytest.warns(UserWarning, match="growth undone"):
        watched.until("RolledBack")
    for _ in range(30):
        watched.step()
    assert kinds(watched.grower).count("Attached") == 2
    assert len(all_grafts(watched.loop.model)) == 1
    assert watched.grower.size.params == sum(p.numel() for p in watched.loop.model.parameters())


@dataclass(frozen=True)
class CutsOnceRefused(Lenient):
    """Accepts every graft, and every cut but the first ``refused``."""

    refused: int = 0
    asked: list[int] = field(default_factory=list)

    def cut(self, *args: Any) -> Verdict:
        self.asked.append(1)
        return replace(super().cut(*args), accepted=len(self.asked) > self.refused)


def cutting(*, refused: int) -> Watched:
    times = Pace(start=3, sense=1, shadow=2, trial=2, rest=1, last=None, prunings=0)
    options = {"judge": CutsOnceRefused(refused=refused), "controller": Script(num_trials=1, times=times)}
    return Watched(host("mlp"), recipes=[MLP], budget=replace(ONE, grafts=1 + refused), **options)


def test_a_cut_is_undone_with_the_graft_that_made_it_possible() -> None:
    watched = cutting(refused=0)
    watched.until("Cut")
    watched.step()
    watched.poison()
    with pytest.warns(UserWarning, match="growth undone"):
        watched.until("RolledBack")
    watched.assert_undone()
    assert watched.grower.size.params == sum(p.numel() for p in watched.loop.model.parameters())
    assert watched.grower.size.macs == watched.grower.sites().macs
    assert watched.grower.record == []


def test_a_cut_beside_an_earlier_graft_is_undone_and_that_graft_stays() -> None:
    watched = cutting(refused=1)
    watched.until("Attached")
    size = watched.grower.size
    watched.until("Cut")
    assert kinds(watched.grower).count("Attached") == 2
    watched.poison()
    with pytest.warns(UserWarning, match="growth undone"):
        watched.until("RolledBack")
    event = watched.grower.history[-1]
    assert isinstance(event, RolledBack)
    assert not difference(watched.states[event.to_step - 1], training_state(watched.loop))
    assert watched.grower.size == size
    assert len(all_grafts(watched.loop.model)) == 1
    assert all_cuts(watched.loop.model) == set()


def test_groups_that_are_added_while_the_guard_watches_outlive_a_rollback() -> None:
    watched = Watched(host("mlp"))
    watched.until("Attached")
    other = torch.nn.Parameter(torch.ones(3))
    other.grad = torch.ones(3)
    watched.loop.optimizer.add_param_group({"params": [other]})
    watched.loop.scheduler = None
    watched.poison()
    with pytest.warns(UserWarning, match="growth undone"):
        watched.until("RolledBack")
    *_, added = watched.loop.optimizer.param_groups
    assert added["params"] == [other]
    assert other not in watched.loop.optimizer.state


def test_groups_that_are_taken_away_end_the_watch_with_a_warning() -> None:
    watched = Watched(host("mlp"))
    watched.loop.scheduler = None
    watched.loop.optimizer.add_param_group({"params": [torch.nn.Parameter(torch.ones(3))]})
    watched.until("Attached")
    del watched.loop.optimizer.param_groups[-1]
    with pytest.warns(UserWarning, match="taken out of the optimizer after a graft was attached"):
        watched.run(Guard.EVERY)
    assert watched.grower.state_dict()["guard"] is None


def test_a_graft_that_behaves_is_watched_for_a_while_only() -> None:
    watched = Watched(host("mlp"))
    watched.until("Attached")
    assert watched.grower.state_dict()["guard"] is not None
    for _ in range(Guard.WATCH):
        watched.step()
    assert watched.grower.state_dict()["guard"] is None
    assert "RolledBack" not in kinds(watched.grower)


@pytest.mark.parametrize("after", ["Attached", "Cut"])
def test_a_rollback_after_a_resume_is_the_one_that_would_have_been(after: str, tmp_path: Path) -> None:
    def fresh() -> Watched:
        return Watched(host("mlp"), recipes=RECIPES) if after == "Attached" else cutting(refused=1)

    whole = fresh()
    whole.until(after)
    whole.step()
    loop = whole.loop
    assert loop.average is not None
    tree = {
        "growth": whole.grower.state_dict(),
        "model": dict(loop.model.state_dict()),
        "average": dict(loop.average.state_dict()),
        "optimizer": loop.optimizer.state_dict(),
        "scheduler": loop.scheduler.state_dict(),
        "scaler": loop.scaler.state_dict(),
        "random": random_state(),
    }
    checkpoint.write(tmp_path, tree)
    done = len(whole.states)
    whole.poison()
    with pytest.warns(UserWarning, match="growth undone"):
        whole.until("RolledBack")

    tree = checkpoint.read(tmp_path)
    again = fresh()
    again.grower.load_state_dict(tree["growth"])
    for part in ("model", "average", "optimizer", "scheduler", "scaler"):
        vars(again.loop)[part].load_state_dict(tree[part])
    set_random_state(tree["random"])
    again.poison()
    with pytest.warns(UserWarning, match="growth undone"):
        again.until("RolledBack")
    assert same(again.loop.losses, whole.loop.losses[done:])
    assert again.grower.history == whole.grower.history
    assert not difference(training_state(whole.loop), training_state(again.loop))
