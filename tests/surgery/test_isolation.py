from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from esper.errors import ClosureError
from esper.surgery import isolation
from esper.surgery.isolation import isolated, unchanged
from esper.surgery.sites import discover
from esper.surgery.structure import first_output, with_first_output
from esper.surgery.trace import trace
from hosts import HOSTS, Host, host

NUM_STEPS = 30

Around = Callable[[nn.Module], AbstractContextManager[None]]


@dataclass(frozen=True)
class State:
    """All that a training run leaves behind, as one flat list of comparable things."""

    tensors: tuple[Tensor, ...]
    others: tuple[Any, ...]

    @classmethod
    def of(cls, model: nn.Module, optimizer: torch.optim.Optimizer) -> State:
        found: list[Any] = []
        attributes = [{k: v for k, v in vars(m).items() if not k.startswith("_")} for m in model.modules()]
        moments = list(optimizer.state_dict()["state"].values())
        streams = [random.getstate(), np.random.get_state(), torch.get_rng_state()]
        _flatten([dict(model.state_dict()), attributes, moments, streams], found)
        tensors = tuple(item.detach().clone() for item in found if isinstance(item, Tensor))
        return cls(tensors, tuple(item for item in found if not isinstance(item, Tensor)))

    def __eq__(self, other: object) -> bool:
        assert isinstance(other, State)
        same = len(self.tensors) == len(other.tensors) and all(map(torch.equal, self.tensors, other.tensors))
        return same and self.others == other.others


def _flatten(value: object, into: list[Any]) -> None:
    if isinstance(value, dict):
        for key, item in value.items():
            into.append(key)
            _flatten(item, into)
    elif isinstance(value, (list, tuple)):
        for item in value:
            _flatten(item, into)
    elif isinstance(value, np.ndarray):
        into.append(value.tolist())
    elif isinstance(value, (Tensor, int, float, str, bool, type(None))):
        into.append(value)


def train(kind: Host, around: Around | None = None, *, num_steps: int = NUM_STEPS, seed: int = 0) -> State:
    """State after training a host; ``around`` encloses a trial on the side after each step."""
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed)
    model = kind.make(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    exit_name = _a_site(model, kind)
    for step in range(num_steps):
        batch = kind.batch(seed + step)
        optimizer.zero_grad()
        kind.loss(model, batch).backward()
        optimizer.step()
        if around is not None:
            with around(model):
                side_trial(model.get_submodule(exit_name), partial(kind.loss, model, batch))
    return State.of(model, optimizer)


def _a_site(model: nn.Module, kind: Host) -> str:
    with isolated(model):
        return discover(trace(model, lambda: kind.loss(model, kind.batch(0)))).sites[-1].exit


def side_trial(module: nn.Module, loss: Callable[[], Tensor]) -> None:
    """A second pass over the batch with something grafted on, whose gradient alone is computed."""
    strength = nn.Parameter(torch.ones(()))

    def graft(_: nn.Module, __: object, output: Any) -> Any:
        z = first_output(output)
        noise = random.random() + np.random.standard_normal()
        return with_first_output(output, z + (strength * noise * F.dropout(z.detach(), 0.5)).to(z.dtype))

    handle = module.register_forward_hook(graft)
    torch.autograd.grad(loss(), [strength])
    handle.remove()


@contextmanager
def bare(_: nn.Module) -> Iterator[None]:
    yield


@pytest.mark.parametrize("kind", HOSTS, ids=lambda kind: kind.name)
def test_side_trials_in_isolation_leave_training_as_it_was_to_the_bit(kind: Host) -> None:
    assert train(kind, isolated) == train(kind)


@pytest.mark.parametrize(
    ("ingredient", "name"),
    [
        ("_tensors", "batchnorm_cnn"),
        ("_tensors", "resnet"),
        ("_tensors", "spectral"),
        ("_tensors", "counters"),
        ("_attributes", "counters"),
        ("random_streams", "mlp"),
        ("random_streams", "lstm"),
        ("random_streams", "shared"),
        ("random_streams", "checkpointed"),
    ],
)
def test_without_any_one_ingredient_a_trial_leaves_a_trace(
    ingredient: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    untouched = train(host(name), num_steps=3)
    monkeypatch.setattr(isolation, ingredient, lambda *_: [])
    assert train(host(name), isolated, num_steps=3) != untouched


@pytest.mark.parametrize("name", ["batchnorm_cnn", "counters", "lstm"])
def test_a_bare_trial_leaves_a_trace(name: str) -> None:
    assert train(host(name), bare, num_steps=3) != train(host(name), num_steps=3)


@given(seed=st.integers(0, 2**16), name=st.sampled_from([kind.name for kind in HOSTS]), deep=st.booleans())
@settings(max_examples=20)
def test_isolation_holds_for_any_seed_and_when_nested(seed: int, name: str, deep: bool) -> None:
    @contextmanager
    def nested(model: nn.Module) -> Iterator[None]:
        with isolated(model), isolated(model, eval_mode=True) if deep else nullcontext():
            yield

    assert train(host(name), nested, num_steps=2, seed=seed) == train(host(name), num_steps=2, seed=seed)


def test_buffers_and_held_tensors_stay_the_same_objects() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("seen", torch.zeros(2))
            self.register_buffer("spread", torch.ones(1).expand(3))
            self.held = torch.zeros(2)
            self.names = {"a"}

        def forward(self) -> None:
            self.seen = self.seen + 1
            self.held.add_(1)
            self.held = self.held + 1
            self.names.add("b")
            self.register_buffer("late", torch.ones(1))
            self.fresh = 1

    model = Model()
    seen, spread, held = model.seen, model.spread, model.held
    attributes = set(vars(model))
    with isolated(model):
        model()
    assert model.seen is seen
    assert model.spread is spread
    assert model.held is held
    assert held.tolist() == [0, 0]
    assert model.names == {"a"}
    assert set(vars(model)) == attributes
    assert set(model.state_dict()) == {"seen", "spread"}


def test_a_graph_that_the_loop_still_holds_stays_valid() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    x = torch.randn(4, 3)
    loss = model(x).square().sum()
    expected = torch.autograd.grad(loss, model[0].weight, retain_graph=True)[0]
    with isolated(model):
        model(x)
    loss.backward()
    assert torch.equal(model[0].weight.grad, expected)


def test_tensors_from_inference_are_put_back_too() -> None:
    model = nn.Identity()
    with torch.inference_mode():
        model.cache = torch.zeros(2)
    with isolated(model), torch.inference_mode():
        model.cache.add_(1)
    assert model.cache.tolist() == [0, 0]


def test_everything_is_put_back_when_the_code_inside_raises() -> None:
    kind = host("batchnorm_cnn")
    model = kind.make(0)
    before = copy.deepcopy(model.state_dict())
    stream = torch.get_rng_state()

    def fail() -> None:
        with isolated(model):
            kind.loss(model, kind.batch(0))
            torch.rand(1)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert torch.equal(stream, torch.get_rng_state())


def test_eval_mode_reaches_every_module_and_frozen_flags_come_back() -> None:
    model = nn.Sequential(nn.BatchNorm1d(3).eval(), nn.Sequential(nn.Dropout()))
    with isolated(model, eval_mode=True):
        assert not any(module.training for module in model.modules())
    assert [module.training for module in model.modules()] == [True, False, True, True]


def test_eval_mode_does_not_call_an_overridden_train() -> None:
    class Merging(nn.Linear):
        def train(self, mode: bool = True) -> Merging:
            raise AssertionError(mode)

    with isolated(Merging(2, 2), eval_mode=True):
        pass


def test_a_stale_cast_of_a_weight_is_not_used() -> None:
    model = nn.Linear(2, 2)
    x = torch.ones(1, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        first = model(x)
        with torch.no_grad():
            model.weight.add_(1)
        with isolated(model):
            second = model(x)
    assert not torch.equal(first, second)


def test_a_cast_from_inside_is_not_used_outside() -> None:
    model = nn.Linear(2, 2)
    x = torch.ones(1, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        with isolated(model):
            inside = model(x)
        with torch.no_grad():
            model.weight.add_(1)
        assert not torch.equal(inside, model(x))


@pytest.mark.parametrize("in_place", [False, True])
def test_hooks_fire_in_a_compiled_model(in_place: bool) -> None:
    model = nn.Sequential(nn.Linear(2, 2))
    compiled: Any = model if in_place else torch.compile(model, backend="eager")
    if in_place:
        model.compile(backend="eager")
    compiled(torch.ones(1, 2))
    calls: list[int] = []
    handle = model[0].register_forward_hook(lambda *_: calls.append(1))
    with isolated(compiled):
        compiled(torch.ones(1, 2))
    handle.remove()
    assert calls == [1]


def _step(model: nn.Linear) -> None:
    with torch.no_grad():
        model.weight.add_(1)


def _replace(model: nn.Linear) -> None:
    model.weight = nn.Parameter(torch.zeros(2, 2))


def _drop(model: nn.Linear) -> None:
    del model.weight


def _backward(model: nn.Linear) -> None:
    model(torch.ones(1, 2)).sum().backward()


def _clear(model: nn.Linear) -> None:
    model.zero_grad()


def _negate_zero(model: nn.Linear) -> None:
    model.bias.data.neg_()


@pytest.mark.parametrize("change", [_step, _replace, _drop, _backward, _clear, _negate_zero])
def test_a_closure_that_changes_weights_is_refused_and_undone(change: Callable[[nn.Linear], None]) -> None:
    model = nn.Linear(2, 2)
    model.bias.data.zero_()
    _backward(model)
    weight, grad = model.weight, model.weight.grad
    before = [weight.clone(), grad.clone(), model.bias.clone(), model.bias.grad.clone()]

    def call() -> None:
        with unchanged(model):
            change(model)

    with pytest.raises(ClosureError, match=r"the closure changed (weight|bias)"):
        call()
    after = [model.weight, model.weight.grad, model.bias, model.bias.grad]
    assert model.weight is weight
    assert weight.grad is grad
    assert list(dict(model.named_parameters())) == ["weight", "bias"]
    assert all(
        torch.equal(a, b) and torch.equal(a.signbit(), b.signbit())
        for a, b in zip(after, before, strict=True)
    )


def test_a_fresh_gradient_is_taken_away_again() -> None:
    model = nn.Linear(2, 2)
    with pytest.raises(ClosureError), unchanged(model):
        _backward(model)
    assert model.weight.grad is None


def test_weights_are_put_back_when_the_closure_itself_raises() -> None:
    model = nn.Linear(2, 2)
    before = model.weight.clone()

    def call() -> None:
        with unchanged(model):
            _step(model)
            raise KeyError

    with pytest.raises(KeyError):
        call()
    assert torch.equal(model.weight, before)


def test_a_closure_over_weights_that_are_not_numbers_is_not_refused() -> None:
    model = nn.Linear(2, 2)
    with torch.no_grad():
        model.weight.fill_(float("nan"))
    with unchanged(model):
        model(torch.ones(1, 2)).sum()
