"""Widenings that are joined between rounds: the next round grows one larger network, and all laws still hold."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from esper import Budget, Recipe
from esper.errors import ConfigurationError
from esper.events import Attached, Widened
from esper.growth import checkpoint, grower
from esper.growth.enlarging import look_again
from esper.growth.guard import Guard
from esper.growth.phases import course
from esper.growth.ranks import Alone
from esper.growth.saved import load, save
from esper.growth.training import inner
from esper.growth.work import Work
from esper.surgery.graft import all_grafts
from growth.loops import Lenient, Loop, Script, difference, kinds, training_state
from growth.test_resume import restore, stored
from hosts import Host, host

WIDEN = Recipe.of("widen", ratio=0.5)
NAMES = ("mlp", "batchnorm_cnn", "lstm", "resnet", "language_model", "transformer")
HOSTS = [pytest.param(host(name), id=name) for name in NAMES]


@pytest.fixture(autouse=True)
def _short_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Guard, "EVERY", 4)
    monkeypatch.setattr(Guard, "WATCH", 8)


def started(kind: Host, *, seed: int = 0, **options: Any) -> Loop:
    loop = Loop(kind, averaged=True, seed=seed)
    given: dict[str, Any] = {
        "judge": Lenient(),
        "controller": Script(proposals=2),
        "budget": Budget(params_ratio=None, grafts=3),
        "recipes": (WIDEN,),
        "join": "rounds",
    }
    loop.grow(**given | options)
    return loop


def work_of(loop: Loop) -> Work:
    assert loop.grower is not None
    return loop.grower._work


def scores(kind: Host, model: nn.Module) -> Tensor:
    was = model.training
    with torch.no_grad():
        found = kind.forward(model.eval(), kind.batch(99)[0]).float()
    model.train(was)
    return found


def joined(loop: Loop, times: int = 1, *, limit: int = 150) -> Loop:
    """Run until widenings have been joined so often."""
    for _ in range(limit):
        if kinds(loop.grower).count("Widened") >= times:  # type: ignore[arg-type]
            return loop
        loop.run_at_random(1)
    raise AssertionError("nothing was joined")


@pytest.mark.parametrize("kind", HOSTS)
def test_joining_leaves_the_function_and_the_names(kind: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    loop = started(kind)
    names = [name for name, _ in loop.model.named_parameters()]
    seen: list[tuple[Tensor, Tensor]] = []
    whole: Callable[[Work], None] = course.enlarge_layers

    def watched(work: Work) -> None:
        copies = [loop.model, *map(inner, work.setup.training.averaged)]
        before = [scores(kind, model) for model in copies]
        whole(work)
        seen.extend(zip(before, [scores(kind, model) for model in copies], strict=True))

    monkeypatch.setattr(course, "enlarge_layers", watched)
    joined(loop, 2)
    assert len(seen) == 4
    for before, after in seen:
        torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-5)
    assert not all_grafts(loop.model)
    assert [name for name, _ in loop.model.named_parameters()] == names
    trained = [p for group in loop.optimizer.param_groups for p in group["params"]]
    assert {id(p) for p in trained} == {id(p) for p in loop.model.parameters()}
    size = work_of(loop).size
    assert size.params == sum(p.numel() for p in loop.model.parameters())
    assert size.macs == work_of(loop).setup.host.macs()


@dataclass(frozen=True)
class Turns(Script):
    """Proposes one site after the other."""

    turn: Iterator[str] = field(default_factory=lambda: itertools.cycle(("0..2", "2..4")))

    def propose(self, view: Any) -> list[Any]:
        site = next(self.turn)
        return [candidate for candidate in view.candidates if candidate.site.name == site]


@pytest.mark.parametrize(("join", "zeros"), [("finish", 8 * 8), ("rounds", 0)])
def test_new_units_are_read_by_those_of_the_next_round(join: str, zeros: int) -> None:
    """Apart until the end, the new units of two layers of 16 are joined by weights that are zero."""
    loop = started(
        host("mlp"), join=join, budget=Budget(params_ratio=None, grafts=2), controller=Turns(num_trials=1)
    )
    assert loop.grower is not None
    while kinds(loop.grower).count("Attached") < 2:
        loop.run_at_random(1)
    loop.grower.finish()
    last = [event for event in loop.grower.history if isinstance(event, Widened)][-1]
    assert last.params == zeros
    second = [event for event in loop.grower.history if isinstance(event, Attached)][1]
    assert second.candidate == "2..4 widen(ratio=0.5)"
    assert [p.shape[0] for p in loop.model.parameters()] == [24, 24, 24, 24, 3, 3]


def test_nothing_is_joined_while_the_guard_may_still_take_it_out() -> None:
    loop = joined(started(host("mlp")))
    assert loop.grower is not None
    first = next(event for event in loop.grower.history if isinstance(event, Attached))
    (told,) = [event for event in loop.grower.history if isinstance(event, Widened)]
    assert told.step == first.step + Guard.WATCH


def test_an_explosion_after_a_joining_leads_back_to_the_joined_network() -> None:
    loop = joined(started(host("mlp")))
    attached = kinds(loop.grower).count("Attached")  # type: ignore[arg-type]
    while kinds(loop.grower).count("Attached") == attached:  # type: ignore[arg-type]
        before = [tuple(p.shape) for p in loop.model.parameters()]
        loop.run_at_random(1)
    with torch.no_grad():
        next(loop.model.parameters()).fill_(math.inf)
    with pytest.warns(UserWarning, match="growth undone"):
        loop.run_at_random(Guard.EVERY)
    assert [tuple(p.shape) for p in loop.model.parameters()] == before
    assert [op["op"] for op in work_of(loop).record] == ["attach", "widen"]
    assert work_of(loop).size.params == sum(p.numel() for p in loop.model.parameters())
    joined(loop, 2)


@pytest.mark.parametrize("name", ["batchnorm_cnn", "lstm"])
@pytest.mark.parametrize("phase", ["sense", "learn", "try", "rest"])
def test_a_run_resumes_to_the_bit_in_every_phase_after_a_joining(
    phase: str, name: str, tmp_path: Path
) -> None:
    """At rest the second widening is in place, and the guard watches it."""
    whole = joined(started(host(name)))
    assert whole.grower is not None
    for _ in range(30):
        whole.run_at_random(1)
        if whole.grower.phase == phase:
            break
    assert whole.grower.phase == phase
    whole.run_at_random(1)
    assert (len(all_grafts(whole.model)) == 1) == (phase == "rest")
    resumes(whole, host(name), tmp_path)


def resumes(whole: Loop, kind: Host, folder: Path) -> None:
    checkpoint.write(folder, stored(whole))
    done = len(whole.losses)
    whole.run_at_random(30)
    again = restore(started(kind), checkpoint.read(folder))
    assert again.grower is not None
    again.model.train()
    again.run_at_random(30)
    assert again.losses == whole.losses[done:]
    assert not difference(training_state(whole), training_state(again))
    assert kinds(again.grower) == kinds(whole.grower)  # type: ignore[arg-type]
    assert str(again.grower.sites()) == str(whole.grower.sites())  # type: ignore[union-attr]


def test_a_finished_run_loads_into_a_fresh_instance(tmp_path: Path) -> None:
    kind = host("mlp")
    loop = joined(started(kind), 2)
    assert loop.grower is not None
    loop.grower.finish()
    save(tmp_path, loop.model, loop.grower)
    assert torch.equal(scores(kind, load(tmp_path, kind.make(3))), scores(kind, loop.model))
    again = started(kind, seed=1)
    assert again.grower is not None
    again.grower.load_state_dict(loop.grower.state_dict())
    assert [p.shape for p in again.model.parameters()] == [p.shape for p in loop.model.parameters()]


def test_beside_another_kind_of_graft_widenings_wait_for_the_end() -> None:
    recipes = (WIDEN, Recipe.of("mlp", hidden=3))
    loop = started(host("mlp"), recipes=recipes, controller=Script(proposals=40, num_trials=3))
    loop.run(120)
    blueprints = {graft.recipe.blueprint for _, graft in all_grafts(loop.model)}
    assert "mlp" in blueprints
    assert work_of(loop).record[-1]["op"] == "attach"


def test_refusals_are_forgotten_where_the_network_has_changed_only() -> None:
    loop = started(host("mlp"), controller=Turns(num_trials=1))
    work = work_of(loop)
    everything = {f"{site.name} {WIDEN}": 1 for site in work.setup.sites}
    while "Widened" not in kinds(loop.grower):  # type: ignore[arg-type]
        work.tally.refusals = dict(everything)
        loop.run_at_random(1)
    assert set(everything) - set(work.tally.refusals) == {
        f"{site} {WIDEN}" for site in ("0", "2", "0..2", "2..4")
    }


def test_the_chosen_sites_stay_the_chosen_ones() -> None:
    loop = started(host("mlp"))
    spans = [site.name for site in work_of(loop).setup.sites if site.block is not None]
    some = started(host("mlp"), sites=spans[:1])
    joined(some)
    assert [site.name for site in work_of(some).setup.sites] == spans[:1]


def test_the_map_of_sites_is_that_of_the_larger_network() -> None:
    loop = started(host("mlp"))
    assert loop.grower is not None
    before = loop.grower.sites().params
    joined(loop)
    assert loop.grower.sites().params == sum(p.numel() for p in loop.model.parameters()) > before


def test_to_look_again_changes_nothing_where_nothing_has_changed() -> None:
    loop = started(host("batchnorm_cnn"))
    work = work_of(loop)
    before, state = work.setup, training_state(loop)
    work.tally.refusals = {f"{work.setup.sites[0].name} {WIDEN}": 2}
    look_again(work)
    assert work.setup == before
    assert list(work.tally.refusals.values()) == [2]
    assert not difference(state, training_state(loop))


def test_what_cannot_be_meant_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="join is one of finish, rounds"):
        started(host("mlp"), join="sometimes")


class Wrapped(Alone):
    """As under DistributedDataParallel: somebody else holds on to the parameters."""

    can_resize = False


def test_where_a_wrapper_would_not_learn_of_it_nothing_is_joined_between_rounds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(grower, "ranks_of", lambda model: (model, Wrapped()))
    with pytest.raises(ConfigurationError, match="a wrapped model does not learn of"):
        started(host("mlp"))
    assert started(host("mlp"), join="finish").grower is not None
