"""A loop without a closure: the model's latest call with gradients is repeated, and leaves nothing behind."""

from __future__ import annotations

import copy
import gc
import weakref
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from esper import Grower, held_out
from esper.errors import ClosureError
from esper.events import AnyEvent
from esper.growth.last_call import LastCall
from growth.loops import MLP, ROOMY, Lenient, Script, Stern, adamw, difference, kinds, model_state

LOSS = "loss"


class Output(NamedTuple):
    """What a model that takes its own loss returns."""

    loss: Tensor
    scores: Tensor


class Classifier(nn.Module):
    """Returns its own loss; writes into its input, as in-place layers do."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
        self.drop = nn.Dropout(0.1)

    def forward(self, x: Tensor, *, labels: Tensor, shift: float = 0.0) -> Output:
        scores = self.net(self.drop(x.add_(shift).mul_(2.0)))
        return Output(F.cross_entropy(scores, labels), scores)


def per_example(model: nn.Module, batch: Any) -> Tensor:
    x, labels = batch
    return F.cross_entropy(model(x.clone(), labels=labels).scores.float(), labels, reduction="none")


def batch(seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(16, 6, generator=generator)
    return x, (x[:, 0].abs() > 0.7).long() + (x[:, 1] > 1).long()


class Run:
    """A loop around `Classifier`: with a closure, with its loss told once, or without growth."""

    def __init__(self, how: str, *, judge: Any = Stern(), dtype: torch.dtype | None = None) -> None:  # noqa: B008
        torch.manual_seed(0)
        self.model = Classifier()
        self.optimizer = adamw(self.model)
        self.grower: Grower | None = None
        self._dtype, self._how = dtype, how
        if how != "alone":
            self.grower = Grower(
                self.model,
                self.optimizer,
                evaluate=held_out([batch(1000)], per_example=per_example),
                loss=(lambda output: output.loss) if how == LOSS else None,
                controller=Script(),
                judge=judge,
                recipes=[MLP],
                budget=ROOMY,
            )

    def loss(self, seed: int) -> Tensor:
        x, labels = batch(seed)
        with torch.autocast("cpu", dtype=self._dtype or torch.bfloat16, enabled=self._dtype is not None):
            return self.model(x, labels=labels, shift=0.1).loss

    def steps(self, count: int, *, accumulate: int = 1) -> Run:
        for step in range(count):
            self.optimizer.zero_grad()
            for part in range(accumulate):
                seed = step * accumulate + part
                self.loss(seed).backward()
            self.optimizer.step()
            if self.grower is not None:
                self.grower.step(*([] if self._how == LOSS else [lambda seed=seed: self.loss(seed)]))
        return self

    @property
    def history(self) -> tuple[AnyEvent, ...]:
        assert self.grower is not None
        return self.grower.history


@pytest.mark.parametrize("options", [{}, {"dtype": torch.bfloat16}], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("accumulate", [1, 3])
def test_the_repeated_call_teaches_what_a_closure_teaches(accumulate: int, options: Any) -> None:
    given = Run("closure", judge=Lenient(), **options).steps(34, accumulate=accumulate)
    told = Run(LOSS, judge=Lenient(), **options).steps(34, accumulate=accumulate)
    assert "Attached" in kinds(told.grower)
    assert told.history == given.history
    assert not difference(model_state(given.model), model_state(told.model))


def test_refused_trials_by_repetition_leave_the_trajectory_of_a_run_without_growth() -> None:
    alone, told = Run("alone").steps(26), Run(LOSS).steps(26)
    assert "Judged" in kinds(told.grower)
    assert not difference(model_state(alone.model), model_state(told.model))


def test_nothing_listens_while_no_phase_repeats_anything_and_a_call_is_freed_at_once() -> None:
    run = Run(LOSS)
    assert run.grower is not None
    seen = set()
    for _ in range(26):
        run.steps(1)
        listening = bool(run.model._forward_pre_hooks)
        assert listening == (run.grower.phase == "try")
        seen.add(run.grower.phase)
        assert run.grower._last_call._call is None
    assert seen >= {"rest", "sense", "learn", "try"}


def test_a_closure_is_not_kept_after_its_step() -> None:
    run = Run("closure")
    assert run.grower is not None
    held = torch.ones(3)
    alive = weakref.ref(held)
    run.grower.step(held.sum)
    del held
    assert alive() is None


def test_without_closure_and_loss_both_ways_are_told() -> None:
    run = Run("closure")
    assert run.grower is not None
    with pytest.raises(ClosureError, match=r"step\(lambda.*loss=lambda output: output\.loss"):
        run.grower.step()


def test_a_model_that_was_not_called_since_the_last_step_is_an_error() -> None:
    run = Run(LOSS)
    assert run.grower is not None
    while run.grower.phase != "try":
        run.steps(1)
    with torch.no_grad():
        run.loss(0)
    with pytest.raises(ClosureError, match="has not been called with gradients"):
        run.grower.step()


def test_a_loss_that_is_no_scalar_is_an_error() -> None:
    run = Run(LOSS)
    assert run.grower is not None
    run.grower._loss = lambda output: output.scores
    with pytest.raises(ClosureError, match="scalar loss"):
        run.steps(26)


def test_validation_between_steps_is_not_what_is_repeated() -> None:
    run = Run(LOSS)
    listener = LastCall(run.model)
    listener.listen()
    x, labels = batch(0)
    run.model(x, labels=labels)
    with torch.no_grad():
        run.model(torch.zeros(4, 6), labels=torch.zeros(4, dtype=torch.long))
    repeated = listener.take(lambda output: output.scores)
    assert len(repeated()) == 16


def test_tensors_that_the_loop_overwrites_are_repeated_as_they_were() -> None:
    seen: list[Tensor] = []

    class Recorder(nn.Module):
        def forward(self, x: Tensor, others: dict[str, list[Tensor]]) -> Tensor:
            seen.append(torch.stack([x, *others["more"]]).clone())
            assert x is others["more"][0]
            return x.zero_().sum()

    model, x = Recorder(), torch.arange(3.0)
    listener = LastCall(model)
    listener.listen()
    model(x, {"more": [x]})
    x.fill_(7.0)
    repeated = listener.take(lambda output: output)
    repeated(), repeated()
    assert all(torch.equal(other, seen[0]) for other in seen)
    assert len(seen) == 3


def test_calls_of_a_copy_of_the_model_are_not_heard() -> None:
    run = Run(LOSS)
    listener = LastCall(run.model)
    listener.listen()
    x, labels = batch(0)
    copy.deepcopy(run.model)(x, labels=labels)
    with pytest.raises(ClosureError, match="has not been called"):
        listener.take(lambda output: output.loss)()


def test_a_listener_that_nobody_holds_any_more_leaves_the_model() -> None:
    model = Classifier()
    LastCall(model).listen()
    gc.collect()
    assert not model._forward_pre_hooks
