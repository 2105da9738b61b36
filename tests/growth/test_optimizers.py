"""New parameters join optimizers under way, trained, with their state; what cannot take them says so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import Optimizer, lr_scheduler

from esper import Budget, Grower
from esper.errors import OptimizerError
from esper.events import Attached, Judged
from esper.growth.optimizers import accepts, assign, dismiss, sibling
from esper.surgery.graft import all_grafts
from growth.loops import MLP, PACE, Lenient, Loop, difference, evaluation, kinds, state
from hosts import host

ONE = Budget(params_ratio=None, grafts=1)
optim = torch.optim

OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    "adamw": lambda p: optim.AdamW(p, lr=1e-2),
    "adamw_amsgrad": lambda p: optim.AdamW(p, lr=1e-2, amsgrad=True),
    "adamw_fused": lambda p: optim.AdamW(p, lr=1e-2, fused=True),
    "adamw_foreach": lambda p: optim.AdamW(p, lr=1e-2, foreach=True),
    "adamw_tensor_lr": lambda p: optim.AdamW(p, lr=torch.tensor(1e-2)),
    "adam": lambda p: optim.Adam(p, lr=1e-2),
    "sgd": lambda p: optim.SGD(p, lr=0.1),
    "sgd_momentum": lambda p: optim.SGD(p, lr=0.1, momentum=0.9),
    "sgd_fused": lambda p: optim.SGD(p, lr=0.1, momentum=0.9, fused=True),
    "sgd_foreach": lambda p: optim.SGD(p, lr=0.1, momentum=0.9, foreach=True),
    "rmsprop": lambda p: optim.RMSprop(p, lr=1e-2, momentum=0.5, centered=True),
    "adagrad": lambda p: optim.Adagrad(p, lr=1e-2, initial_accumulator_value=0.1),
    "adagrad_fused": lambda p: optim.Adagrad(p, lr=1e-2, fused=True),
    "nadam": lambda p: optim.NAdam(p, lr=1e-2),
    "radam": lambda p: optim.RAdam(p, lr=1e-2),
    "radam_foreach": lambda p: optim.RAdam(p, lr=1e-2, foreach=True),
    "adafactor": lambda p: optim.Adafactor(p, lr=1e-2),
    "adamax": lambda p: optim.Adamax(p, lr=1e-2),
    "adadelta": lambda p: optim.Adadelta(p, lr=1.0),
    "asgd": lambda p: optim.ASGD(p, lr=1e-2),
    "rprop": lambda p: optim.Rprop(p, lr=1e-3),
}


def in_turn(optimizer: Optimizer) -> Any:
    """A warm-up, then a decay."""
    parts = [lr_scheduler.ConstantLR(optimizer, 0.1, 5), lr_scheduler.ExponentialLR(optimizer, 0.95)]
    return lr_scheduler.SequentialLR(optimizer, parts, milestones=[8])


def chained(optimizer: Optimizer) -> Any:
    """Two at once."""
    parts = [lr_scheduler.ConstantLR(optimizer, 0.1, 5), lr_scheduler.ExponentialLR(optimizer, 0.95)]
    return lr_scheduler.ChainedScheduler(parts, optimizer=optimizer)


SCHEDULERS: dict[str, Callable[[Optimizer], Any]] = {
    "LambdaLR": lambda o: lr_scheduler.LambdaLR(o, lambda step: 0.95**step),
    "MultiplicativeLR": lambda o: lr_scheduler.MultiplicativeLR(o, lambda step: 0.95 + 0.01 * (step % 2)),
    "StepLR": lambda o: lr_scheduler.StepLR(o, 7),
    "MultiStepLR": lambda o: lr_scheduler.MultiStepLR(o, [5, 18, 30]),
    "ConstantLR": lambda o: lr_scheduler.ConstantLR(o, 0.1, 20),
    "LinearLR": lambda o: lr_scheduler.LinearLR(o, 0.1, total_iters=30),
    "ExponentialLR": lambda o: lr_scheduler.ExponentialLR(o, 0.95),
    "SequentialLR": in_turn,
    "CosineAnnealingLR": lambda o: lr_scheduler.CosineAnnealingLR(o, 60),
    "ChainedScheduler": chained,
    "ReduceLROnPlateau": lambda o: lr_scheduler.ReduceLROnPlateau(o, patience=1, factor=0.7),
    "CyclicLR": lambda o: lr_scheduler.CyclicLR(o, 1e-3, 1e-2, step_size_up=6),
    "CosineAnnealingWarmRestarts": lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 9),
    "OneCycleLR": lambda o: lr_scheduler.OneCycleLR(o, max_lr=0.05, total_steps=60),
    "PolynomialLR": lambda o: lr_scheduler.PolynomialLR(o, 50),
}


def groups(model: nn.Module) -> Optimizer:
    """No weight decay for vectors, as many users have it."""
    matrices = [p for p in model.parameters() if p.dim() > 1]
    vectors = [p for p in model.parameters() if p.dim() <= 1]
    return optim.AdamW(
        [{"params": vectors, "weight_decay": 0.0}, {"params": matrices, "weight_decay": 0.1}], lr=1e-2
    )


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_what_the_trial_has_trained_arrives_in_model_and_optimizer(name: str) -> None:
    loop = Loop(host("mlp"), optimizer=lambda model: OPTIMIZERS[name](model.parameters()))
    grower = loop.grow(judge=Lenient(), recipes=[MLP], budget=ONE)
    seen: dict[str, float] = {}

    def attached(event: object) -> None:
        if isinstance(event, Attached):
            with torch.no_grad():
                seen[event.candidate] = float(evaluation(loop.host)(loop.model).double().mean())
            assert_states_arrived(loop)

    grower.on_event(attached)
    loop.run(40)
    verdicts = {event.candidate: event for event in reversed(grower.history) if isinstance(event, Judged)}
    judged = {name: verdicts[name].host_loss - verdicts[name].gain for name in seen}
    assert len(seen) == 1
    assert seen == pytest.approx(judged, abs=1e-9)
    assert all(verdicts[name].gain != 0 for name in seen)
    assert all(torch.isfinite(p).all() for p in loop.model.parameters())
    loop.optimizer.load_state_dict(loop.optimizer.state_dict())


def assert_states_arrived(loop: Loop) -> None:
    ((_, graft),) = all_grafts(loop.model)
    host_state = loop.optimizer.state.get(next(iter(loop.model.parameters())), {})
    for parameter in graft.parameters():
        own = loop.optimizer.state.get(parameter, {})
        assert set(own) == set(host_state) or isinstance(loop.optimizer, optim.Adafactor)
        if "step" in own:
            assert float(own["step"]) == PACE.trial
        assert any(own is s for s in loop.optimizer.state.values()) == bool(own)


def test_the_schedulers_are_all_that_torch_has() -> None:
    assert set(SCHEDULERS) == set(lr_scheduler.__all__) - {"LRScheduler"}


@pytest.mark.parametrize("name", SCHEDULERS)
def test_schedulers_go_on_after_an_attachment(name: str) -> None:
    def rates(loop: Loop) -> list[list[float]]:
        return [[group["lr"] for group in loop.run(1).optimizer.param_groups] for _ in range(40)]

    expected = rates(Loop(host("mlp"), optimizer=groups, scheduler=SCHEDULERS[name]))
    loop = Loop(host("mlp"), optimizer=groups, scheduler=SCHEDULERS[name])
    grower = loop.grow(judge=Lenient(), recipes=[MLP], budget=ONE)
    found = rates(loop)
    at = next(event.step for event in grower.history if isinstance(event, Attached))
    assert found[:at] == expected[:at]
    if name == "ReduceLROnPlateau":  # it follows the losses, which are others now
        assert found[-1] <= found[at]
    else:
        assert found == expected


def test_matrices_join_the_group_of_the_sites_weight_and_vectors_that_of_its_bias() -> None:
    loop = Loop(host("mlp"), optimizer=groups)
    loop.grow(judge=Lenient(), recipes=[MLP], budget=ONE)
    loop.run(20)
    ((_, graft),) = all_grafts(loop.model)
    places = {
        id(p): index for index, group in enumerate(loop.optimizer.param_groups) for p in group["params"]
    }
    assert {p.dim(): places[id(p)] for p in graft.parameters()} == {2: 1, 1: 0}


@pytest.mark.parametrize(
    ("rate", "moves"), [(lambda step: float(step < 5), False), (lambda step: float(step > 13), True)]
)
def test_a_trial_runs_at_the_present_learning_rate(rate: Callable[[int], float], moves: bool) -> None:
    loop = Loop(
        host("mlp"),
        optimizer=lambda model: optim.SGD(model.parameters(), lr=0.1),
        scheduler=lambda o: lr_scheduler.LambdaLR(o, rate),
    )
    grower = loop.grow(recipes=[MLP])
    loop.run(18)
    gains = [event.gain for event in grower.history if isinstance(event, Judged)]
    assert gains
    assert all((gain != 0.0) == moves for gain in gains)


def test_muon_refuses_vectors_and_the_host_goes_on_as_without_growth() -> None:
    def muon(model: nn.Module) -> Optimizer:
        return optim.Muon([p for p in model.parameters() if p.dim() == 2], lr=1e-2)

    expected = state(Loop(host("mlp"), optimizer=muon).run(30))
    loop = Loop(host("mlp"), optimizer=muon)
    grower = loop.grow(recipes=[MLP])
    assert not difference(expected, state(loop.run(30)))
    assert "Judged" not in kinds(grower)
    refused = [event.reason for event in grower.history if type(event).__name__ == "Refused"]
    assert refused
    assert all("Muon cannot take its parameters" in reason for reason in refused)


def construct(optimizer: Callable[[nn.Module], Optimizer]) -> None:
    kind = host("mlp")
    model = kind.make(0)
    Grower(model, optimizer(model), evaluate=evaluation(kind), judge=Lenient())


@pytest.mark.parametrize("name", ["LBFGS", "SparseAdam"])
def test_optimizers_that_cannot_take_parameters_are_refused_at_construction(name: str) -> None:
    with pytest.raises(OptimizerError, match=f"{name} cannot take new parameters.*use AdamW or SGD"):
        construct(lambda model: vars(optim)[name](list(model.parameters())))


def test_an_optimizer_of_another_model_is_refused() -> None:
    with pytest.raises(OptimizerError, match="pass the one that trains it"):
        construct(lambda _: optim.SGD(nn.Linear(2, 2).parameters(), lr=0.1))


class Slow(optim.SGD):
    """Steps an inner optimizer, as look-ahead wrappers do."""

    def __init__(self, inner: Optimizer) -> None:
        super().__init__(inner.param_groups, lr=0.1)
        self.inner = inner


def test_a_wrapper_around_another_optimizer_is_refused_since_a_copy_would_move_the_original() -> None:
    with pytest.raises(OptimizerError, match="pass the inner one"):
        construct(lambda model: Slow(optim.SGD(model.parameters(), lr=0.1)))


def test_a_sibling_shares_no_state_no_hooks_and_no_patches() -> None:
    weight, other = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    optimizer = optim.SGD([weight], lr=0.5, momentum=0.9)
    lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)
    calls: list[object] = []
    optimizer.register_step_pre_hook(lambda *_: calls.append(1))
    twin = sibling(optimizer, [[other]])
    other.grad = torch.ones(2)
    twin.step()
    assert other.tolist() == [0.5, 0.5]
    assert weight.tolist() == [1.0, 1.0]
    assert not calls
    assert not optimizer.state
    assert twin.param_groups[0]["lr"] == 0.5


def test_a_sibling_of_adagrad_has_the_state_that_its_constructor_makes() -> None:
    weight, other = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(3))
    optimizer = optim.Adagrad([weight], initial_accumulator_value=0.5)
    assert sibling(optimizer, [[other]]).state[other]["sum"].tolist() == [0.5, 0.5, 0.5]
    assert list(optimizer.state) == [weight]


def test_acceptance_is_found_out_without_touching_anything() -> None:
    weight, fresh = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(3))
    optimizer = optim.AdamW([weight])
    assert accepts(optimizer, [[fresh]]) is None
    assert fresh.tolist() == [1.0, 1.0, 1.0]
    assert fresh.grad is None
    assert not optimizer.state


def test_parameters_of_a_frozen_site_join_the_largest_group() -> None:
    site = nn.Linear(2, 2)
    small, large = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(5, 5))
    optimizer = optim.SGD([{"params": [small]}, {"params": [large]}], lr=0.1)
    assert [len(group) for group in assign(optimizer, site, nn.Linear(2, 3))] == [0, 2]


def named(model: nn.Module) -> Optimizer:
    named = list(model.named_parameters())
    return optim.AdamW(
        [{"params": [(n, p) for n, p in named if (p.dim() > 1) is many]} for many in (True, False)], lr=1e-2
    )


@pytest.mark.parametrize("cuts", [False, True], ids=["grafted", "cut"])
def test_an_optimizer_that_names_its_parameters_has_one_name_for_each_and_still_saves_and_loads(
    cuts: bool,
) -> None:
    loop = Loop(host("mlp"), optimizer=named)
    before = {n for group in loop.optimizer.param_groups for n in group["param_names"]}
    grower = loop.grow(judge=Lenient(cuts=cuts), recipes=[MLP], budget=ONE)
    loop.run(46)
    assert "Attached" in kinds(grower)
    assert ("Cut" in kinds(grower)) == cuts
    own = {id(p): name for name, p in loop.model.named_parameters()}
    for group in loop.optimizer.param_groups:
        pairs = list(zip(group["params"], group["param_names"], strict=True))
        assert all(name == own[id(p)] for p, name in pairs if name in before)
    names = [n for group in loop.optimizer.param_groups for n in group["param_names"]]
    assert len(set(names)) == len(names)
    assert set(names) - before
    loop.optimizer.load_state_dict(loop.optimizer.state_dict())
    loop.run(1)


def test_groups_that_are_added_during_a_trial_end_it_and_training_goes_on() -> None:
    loop = Loop(host("mlp"))
    grower = loop.grow(judge=Lenient(), recipes=[MLP], budget=ONE)
    loop.until("try").run(1)
    extra = nn.Parameter(torch.ones(1))
    loop.optimizer.add_param_group({"params": [extra]})
    loop.run(1).until("rest")
    refused = [event.reason for event in grower.history if type(event).__name__ == "Refused"]
    assert any("other parameter groups" in reason for reason in refused)
    loop.run(20)
    assert "Attached" in kinds(grower)
    assert any(p is extra for p in loop.optimizer.param_groups[1]["params"])


def test_dismissed_parameters_leave_with_their_state() -> None:
    first, second = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))
    optimizer = optim.AdamW([first, second])
    (first + second).sum().backward()
    optimizer.step()
    dismiss(optimizer, [first, nn.Parameter(torch.ones(1))])
    assert optimizer.param_groups[0]["params"] == [second]
    assert list(optimizer.state) == [second]
