"""A training run as a user writes it: a host that is fine-tuned, with growth at the place of its need."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from esper import Budget, Grower, Rules, held_out
from esper.growth import checkpoint
from esper.growth.guard import random_state, set_random_state
from models.family import Family, find_site

STEPS = 124
NUM_BATCHES = 20
NUM_HELD_OUT = 16
RULES = Rules(start=30, sense=2, updates=40, trial=40, rest_steps=4)
"""One round, and a few steps more with what it has attached."""


class Course:
    """The same batches in the same order for everybody; the site learns fast, the rest of the host slowly."""

    def __init__(self, family: Family) -> None:
        self.family = family
        self.model, self.optimizer = _start(family)
        self.losses: list[float] = []
        self.grower = Grower(
            self.model,
            self.optimizer,
            evaluate=_evaluation(family),
            sites=[family.need.site],
            recipes=[family.need.recipe],
            budget=Budget(params_ratio=None, grafts=1),
            controller=RULES,
        )
        self._done = 0

    def run(self, steps: int) -> Course:
        """So many steps more."""
        for _ in range(steps):
            batch = _training_batch(self.family, self._done % NUM_BATCHES)
            self.losses.append(_update(self.family, self.model, self.optimizer, batch))
            self.grower.step(functools.partial(self.family.loss, self.model, batch))
            self._done += 1
        return self

    def store(self, folder: Path) -> None:
        """What a user saves to go on later."""
        state = {
            "done": self._done,
            "growth": self.grower.state_dict(),
            "model": dict(self.model.state_dict()),
            "optimizer": self.optimizer.state_dict(),
            "random": random_state(),
        }
        checkpoint.write(folder, state)

    def restore(self, folder: Path) -> Course:
        """Go on from there, in a fresh model."""
        state = checkpoint.read(folder)
        self.grower.load_state_dict(state["growth"])
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        set_random_state(state["random"])
        self._done = state["done"]
        return self


def plain_losses(family: Family, steps: int) -> list[float]:
    """The losses of the first steps of the same loop without Esper."""
    model, optimizer = _start(family)
    batches = (_training_batch(family, number % NUM_BATCHES) for number in range(steps))
    return [_update(family, model, optimizer, batch) for batch in batches]


def _start(family: Family) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.default_generator.manual_seed(0)
    model = family.make(0)
    return model, torch.optim.Adam(_groups(model, family))


def _update(family: Family, model: nn.Module, optimizer: torch.optim.Optimizer, batch: Any) -> float:
    optimizer.zero_grad()
    loss = family.loss(model, batch)
    loss.backward()
    optimizer.step()
    return loss.item()


def _groups(model: nn.Module, family: Family) -> list[dict[str, Any]]:
    own = list(model.get_submodule(find_site(family, model).exit).parameters())
    known = {id(parameter) for parameter in own}
    others = [parameter for parameter in model.parameters() if id(parameter) not in known]
    return [{"params": others, "lr": 1e-5}, {"params": own, "lr": family.need.lr}]


@functools.cache
def _training_batch(family: Family, number: int) -> Any:
    return family.batch(number)


@functools.cache
def _evaluation(family: Family) -> Callable[[nn.Module], torch.Tensor]:
    batches = [family.batch(1000 + number) for number in range(NUM_HELD_OUT)]
    return held_out(batches, per_example=functools.partial(_per_example, family))


def _per_example(family: Family, model: nn.Module, batch: Any) -> torch.Tensor:
    return family.loss(model, batch, reduction="none")
