"""Training loops as a user writes them, with and without growth, and everything that such a loop moves.

Knows no law; those stand in the tests.
"""

from __future__ import annotations

import copy
import itertools
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from esper import Budget, Grower, Judge, Recipe, held_out
from esper.controller.judge import Verdict
from esper.controller.rules import Pace
from hosts import Batch, Host

MLP = Recipe.of("mlp", ratio=1.0)
RECIPES = (MLP, Recipe.of("bottleneck", ratio=0.5), Recipe.of("conv2d"), Recipe.of("ffn", ratio=1.0))
PACE = Pace(start=3, sense=2, shadow=6, trial=6, rest=4, last=None, prunings=0)
ROOMY = Budget(params_ratio=100.0)
NUM_BATCHES = 6


@dataclass(frozen=True)
class Script:
    """A controller that does as the test says: tries the last ``num_trials`` sites, round after round."""

    num_trials: int = 2
    rounds: int | None = None
    times: Pace = PACE
    proposals: int = 4

    def pace(self, total_steps: int | None) -> Pace:
        return self.times if total_steps is None else replace(self.times, last=total_steps)

    def propose(self, view: Any) -> list[Any]:
        return list(view.candidates)[-self.proposals :]

    def halve(self, scores: Sequence[Any], *_: Any) -> list[str]:
        return [score.candidate for score in scores][: max(self.num_trials, 1)]

    def choose(self, scores: Sequence[Any], *_: Any) -> list[str]:
        return [score.candidate for score in scores][: self.num_trials]

    def rest(self, num_refusals: int) -> int | None:
        return None if self.rounds is not None and num_refusals >= self.rounds else 1


@dataclass(frozen=True)
class Lenient(Judge):
    """Accepts every graft, and every cut if told so; ends no trial early."""

    min_examples: int = 2
    cuts: bool = False
    tests: int = 1000

    def graft(self, *args: Any, **options: Any) -> Verdict:
        return replace(super().graft(*args, **options), accepted=True)

    def cut(self, *args: Any) -> Verdict:
        return replace(super().cut(*args), accepted=self.cuts)

    def hopeless(self, *_: Any) -> bool:
        return False


@dataclass(frozen=True)
class Stern(Lenient):
    """Lets every trial run to its end and then refuses it; with ``grafts`` only cuts are refused."""

    grafts: bool = False

    def graft(self, *args: Any, **options: Any) -> Verdict:
        return replace(super().graft(*args, **options), accepted=self.grafts)


@dataclass(frozen=True)
class Doubtful(Lenient):
    """Calls every gain unsettled while the host's loss moves by more than ``settled`` a trial; then accepts it."""

    settled: float = 0.0

    def graft(self, *args: Any, progress: float = 0.0, **options: Any) -> Verdict:
        doubt = abs(progress) > self.settled
        return replace(super().graft(*args, **options), accepted=not doubt, unsettled=doubt)


def evaluation(host: Host, num_batches: int = 2) -> Any:
    """Held-out losses on batches of their own."""
    batches = [host.batch(1000 + seed) for seed in range(num_batches)]
    return held_out(batches, per_example=lambda model, batch: host.loss(model, batch, reduction="none"))


def adamw(model: nn.Module) -> Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=1e-2)


def seed_everything(seed: int) -> None:
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed)


class Loop:
    """A user's loop: shuffled batches, a random loss weight from each random stream, closure from the same batch."""

    def __init__(
        self,
        host: Host,
        *,
        optimizer: Callable[[nn.Module], Optimizer] = adamw,
        scheduler: Callable[[Optimizer], Any] | None = None,
        averaged: bool = False,
        scaled: bool = False,
        seed: int = 0,
    ) -> None:
        seed_everything(seed)
        self.host = host
        self.model = host.make(seed)
        self.optimizer = optimizer(self.model)
        self.scheduler = None if scheduler is None else scheduler(self.optimizer)
        self.average = torch.optim.swa_utils.AveragedModel(self.model) if averaged else None
        self.scaler = torch.amp.GradScaler("cpu", enabled=scaled, init_scale=64.0, growth_interval=4)
        self.grower: Grower | None = None
        self.losses: list[float] = []
        self._batches = [host.batch(seed) for seed in range(NUM_BATCHES)]
        self._order = self._shuffled()

    def grow(self, **options: Any) -> Grower:
        """Let it grow, by default by trying small grafts in short rounds."""
        options = {
            "evaluate": evaluation(self.host),
            "controller": Script(),
            "judge": Stern(),
            "recipes": RECIPES,
            "budget": ROOMY,
            "scheduler": self.scheduler,
            "scaler": self.scaler,
            "averaged": () if self.average is None else (self.average,),
        } | options
        self.grower = Grower(self.model, self.optimizer, **options)
        return self.grower

    def run(self, steps: int) -> Loop:
        for batch in self.batches(steps):
            self.step(batch)
        return self

    def until(self, phase: str, *, limit: int = 100) -> Loop:
        """Run until growth is in that phase."""
        assert self.grower is not None
        for _ in range(limit):
            if self.grower.phase == phase:
                return self
            self.run(1)
        raise AssertionError(f"{phase} is not reached within {limit} steps")

    def batches(self, steps: int) -> Iterator[Batch]:
        """The next shuffled batches."""
        return itertools.islice(self._order, steps)

    def run_at_random(self, steps: int) -> Loop:
        """As :meth:`run`, every batch drawn from the random stream alone, so that the stream tells where one is."""
        for _ in range(steps):
            self.step(self._batches[int(torch.randint(NUM_BATCHES, ()))])
        return self

    def step(self, batch: Batch) -> None:
        self.optimizer.zero_grad()
        loss = self.host.loss(self.model, batch) * (
            1 + 0.01 * random.random() + 0.01 * float(np.random.rand())
        )
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.scheduler is not None:
            plateau = isinstance(self.scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau)
            self.scheduler.step(*([loss.item()] if plateau else []))
        if self.average is not None:
            self.average.update_parameters(self.model)
        self.losses.append(loss.item())
        if self.grower is not None:
            self.grower.step(lambda: self.host.loss(self.model, batch))

    def _shuffled(self) -> Iterator[Batch]:
        loader = DataLoader(self._batches, batch_size=None, shuffle=True)
        while True:
            yield from loader


def state(loop: Loop) -> dict[str, Any]:
    """All that a loop moves: weights, gradients, buffers, plain attributes, optimizer, scheduler, streams, losses."""
    return {
        "training": training_state(loop),
        "gradients": _copied({name: p.grad for name, p in loop.model.named_parameters()}),
        "losses": list(loop.losses),
    }


def training_state(loop: Loop) -> dict[str, Any]:
    """A copy of what is trained and of the random streams, without gradients."""
    parts = {
        "model": model_state(loop.model),
        "optimizer": loop.optimizer.state_dict(),
        "scheduler": None if loop.scheduler is None else loop.scheduler.state_dict(),
        "scaler": loop.scaler.state_dict(),
        "average": None if loop.average is None else model_state(loop.average),
        "streams": streams(),
    }
    return dict(_copied(parts))


def model_state(model: nn.Module) -> dict[str, Any]:
    """Parameters and buffers by name, and every module's own attributes and mode."""
    return {
        "tensors": {**dict(model.named_parameters()), **dict(model.named_buffers())},
        "attributes": {name: _plain(module) for name, module in model.named_modules()},
    }


def streams() -> dict[str, Any]:
    """The random streams."""
    return {
        "torch": torch.get_rng_state(),
        "random": random.getstate(),
        "numpy": np.random.get_state(legacy=True),
    }


def structure(model: nn.Module) -> dict[str, Any]:
    """Names, identities and hooks of modules and tensors: what must not change while growth is dormant."""
    return {
        "modules": [(name, id(module), sorted(vars(module))) for name, module in model.named_modules()],
        "tensors": [(name, id(t)) for name, t in (*model.named_parameters(), *model.named_buffers())],
        "hooks": [
            len(v) for m in model.modules() for k, v in vars(m).items() if "hooks" in k and v is not None
        ],
        "forwards": [vars(module).get("forward") for module in model.modules()],
    }


def same(a: Any, b: Any) -> bool:
    """Equal to the bit, through any nesting; NaN equals itself."""
    if isinstance(a, (Tensor, np.ndarray)):
        x, y = torch.as_tensor(a), torch.as_tensor(b)
        return x.dtype == y.dtype and x.shape == y.shape and bool(torch.equal(_bytes(x), _bytes(y)))
    if isinstance(a, Mapping):
        return isinstance(b, Mapping) and list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return isinstance(b, (list, tuple)) and len(a) == len(b) and all(map(same, a, b))
    return bool(a == b) or (a != a and b != b)


def difference(a: Any, b: Any, path: str = "") -> str:
    """Where two nested states first differ; empty when they are the same."""
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        if list(a) != list(b):
            return f"{path}: keys {sorted(map(str, set(a) ^ set(b)))}"
        return next((d for key in a if (d := difference(a[key], b[key], f"{path}.{key}"))), "")
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        if len(a) != len(b):
            return f"{path}: {len(a)} and {len(b)} items"
        pairs = enumerate(zip(a, b, strict=True))
        return next((d for i, (x, y) in pairs if (d := difference(x, y, f"{path}[{i}]"))), "")
    return "" if same(a, b) else f"{path}: {a} and {b}"


def kinds(grower: Grower) -> list[str]:
    """The types of all events so far."""
    return [type(event).__name__ for event in grower.history]


def _plain(module: nn.Module) -> dict[str, Any]:
    skipped = {"_parameters", "_modules", "_buffers", "_flat_weights", "_flat_weight_refs"}
    return {
        key: value
        for key, value in vars(module).items()
        if key not in skipped
        and isinstance(value, (bool, int, float, str, Tensor, list, dict))
        and "hook" not in key
    }


def _copied(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_copied(item) for item in value]
    return copy.copy(value)


def _bytes(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8)
