"""The training loop: steps, growth, measurements, checkpoints.

Does not know how a run is shown or reported.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from esper.errors import CheckpointError, DataError
from esper.events import AnyEvent
from esper.growth import checkpoint
from esper.growth.guard import random_state, set_random_state
from esper.growth.run_memory import RunMemory
from esper.training.data import take
from esper.training.journal import Journal
from esper.training.network import layers, num_params
from esper.training.order import Order
from esper.training.progress import Progress
from esper.training.run import Measured, RunFolder
from esper.training.task import Task

SMOOTHING = 0.98


@dataclass(frozen=True)
class Pace:
    """How many steps lie between two measurements on held-out data, and between two checkpoints.

    There is a checkpoint after ``seconds``, too: of a slow model no more is lost than that.
    """

    evaluate: int
    save: int = 500
    seconds: float = 120.0

    @classmethod
    def of(cls, total_steps: int) -> Pace:
        """Sixty measurements a run."""
        return cls(evaluate=max(1, total_steps // 60))


Listener = Callable[[Progress | AnyEvent], None]


class Trainer:
    """Trains a task in a run folder.

    All state is in the checkpoint: going on from it gives the very same losses.
    """

    def __init__(
        self,
        task: Task,
        run: RunFolder,
        *,
        seed: int = 0,
        growth: bool = True,
        pace: Pace | None = None,
        memory: RunMemory | None = None,
    ) -> None:
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        self.task = task
        self.run = run
        self.pace = pace or Pace.of(task.total_steps)
        self.step = 0
        self.seconds = 0.0
        self.model = task.make_model(seed)
        task.check_shapes(self.model)
        self.optimizer = task.make_optimizer(self.model.parameters())
        self.scheduler = task.make_scheduler(self.optimizer, task.total_steps)
        self.grower = self._make_grower(seed, memory) if growth else None
        self._order = Order(len(task.sets.train[-1]), task.batch_size, seed=seed)
        self._listeners: list[Listener] = []
        self._journals: tuple[Journal, Journal] | None = None
        self._sizes = [0, 0]
        self._loss = math.nan
        self._held_out: tuple[float | None, float | None] = (None, None)
        self._untrained = num_params(self.model) - self._num_trained()
        self._params = self._num_params()

    def listen(self, listener: Listener) -> None:
        """Call ``listener`` with ``Progress`` after every step, and with every growth event."""
        self._listeners.append(listener)

    def train(self, *, should_stop: Callable[[], bool] = lambda: False) -> bool:
        """Take the steps that are left; whether all are done. The state is saved in either case.

        ``should_stop`` is asked after every step. Raises ``DataError`` when two losses in a row are not
        finite.
        """
        with self._open_journals():
            if self._sizes[0] == 0:
                self._begin()
            self._take_steps(should_stop)
        return self.step >= self.task.total_steps

    def finish(self) -> nn.Module:
        """End growth and fold the grafts; the finished model."""
        if self.grower is None:
            return self.model
        with self._open_journals():
            model: nn.Module = self.grower.finish()
        return model

    def save(self) -> None:
        """Write the checkpoint. Raises ``CheckpointError`` when the disk refuses; the one before it stays."""
        assert self._journals is not None
        self._sizes = [journal.flush() for journal in self._journals]
        checkpoint.write(self.run.checkpoint, {**self._state(), "journals": self._sizes})

    def restore(self) -> None:
        """Go back to the checkpoint of the run folder; what the journals say of later steps is cut off."""
        state = checkpoint.read(self.run.checkpoint)
        try:
            self._load(state)
        except (KeyError, RuntimeError, ValueError) as error:
            raise CheckpointError(f"{self.run.checkpoint} does not fit this task: {error}") from error
        self._sizes = state["journals"]

    def _begin(self) -> None:
        """Measure, draw and save once before the first step: what cannot work fails here."""
        assert self._journals is not None
        self.run.change(network_before=layers(self.model, self.task.sets.held_out))
        self._held_out = self.task.evaluate(self.model, self.task.sets.held_out)
        self._journals[0].append(self._measured(None))
        self.save()

    def _take_steps(self, should_stop: Callable[[], bool]) -> None:
        saved = time.monotonic()
        started = saved - self.seconds
        stop = False
        while self.step < self.task.total_steps and not stop:
            self._advance()
            now = time.monotonic()
            self.seconds = now - started
            stop = should_stop()
            due = self.step % self.pace.save == 0 or now - saved >= self.pace.seconds
            if stop or due or self.step == self.task.total_steps:
                self.save()
                saved = now

    def _advance(self) -> None:
        self.step += 1
        batch = take(self.task.sets.train, self._order.batch(self.step))
        rate = self.optimizer.param_groups[0]["lr"]
        self.optimizer.zero_grad()
        loss = self.task.batch_loss(self.model, batch)
        loss.backward()
        self.optimizer.step()
        self.scheduler.step()
        if self.grower is not None:
            self.grower.step(lambda: self.task.batch_loss(self.model, batch))
        self._measure(float(loss.detach()), float(rate))

    def _measure(self, loss: float, rate: float) -> None:
        assert self._journals is not None
        self._smooth(loss)
        if self.step % self.pace.evaluate == 0 or self.step == self.task.total_steps:
            self._held_out = self.task.evaluate(self.model, self.task.sets.held_out)
            self._params = self._num_params()
            self._journals[0].append(self._measured(loss, rate=rate))
        else:
            self._journals[0].append(Measured(step=self.step, loss=loss))
        self._tell(Progress(self.step, self.task.total_steps, self._loss, *self._held_out, self._params))

    def _measured(self, loss: float | None, *, rate: float | None = None) -> Measured:
        held_out_loss, metric = self._held_out
        return Measured(
            step=self.step,
            loss=loss,
            lr=rate,
            held_out_loss=held_out_loss,
            held_out_metric=metric,
            params=self._params,
        )

    def _num_params(self) -> int:
        """Size of the network; a path that was cut no longer counts, though it is there until the end."""
        return self._untrained + self._num_trained()

    def _num_trained(self) -> int:
        groups = self.optimizer.param_groups
        return sum(p.numel() for group in groups for p in group["params"] if p.requires_grad)

    def _smooth(self, loss: float) -> None:
        if not math.isfinite(loss) and self.step > 1 and not math.isfinite(self._loss):
            raise DataError(
                f"the loss is {loss} at step {self.step}, twice in a row; look for infinite values in the data, "
                "or lower the learning rate"
            )
        known = math.isfinite(self._loss) and math.isfinite(loss)
        self._loss = SMOOTHING * self._loss + (1 - SMOOTHING) * loss if known else loss

    def _note(self, event: AnyEvent) -> None:
        if self._journals is not None:
            self._journals[1].append(event)
        self._params = self._num_params()
        self._tell(event)

    def _tell(self, news: Progress | AnyEvent) -> None:
        for listener in self._listeners:
            listener(news)

    @contextmanager
    def _open_journals(self) -> Iterator[None]:
        """Open them where the last checkpoint left them."""
        metrics, events = self.run.metrics, self.run.events
        with Journal(metrics, size=self._sizes[0]) as first, Journal(events, size=self._sizes[1]) as second:
            self._journals = (first, second)
            yield
            self._sizes = [first.flush(), second.flush()]
            self._journals = None

    def _make_grower(self, seed: int, memory: RunMemory | None) -> Any:
        from esper.growth.grower import Grower

        grower = Grower(
            self.model,
            self.optimizer,
            evaluate=self.task.evaluator(self.task.sets.held_out),
            total_steps=self.task.total_steps,
            budget=self.task.budget,
            scheduler=self.scheduler,
            memory=memory,
            seed=seed,
        )
        grower.on_event(self._note)
        return grower

    def _state(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "seconds": self.seconds,
            "loss": self._loss,
            "random": random_state(),
            "grower": None if self.grower is None else self.grower.state_dict(),
            "model": dict(self.model.state_dict()),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
        }

    def _load(self, state: dict[str, Any]) -> None:
        if self.grower is not None:
            self.grower.load_state_dict(state["grower"])
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        self.step, self.seconds, self._loss = state["step"], state["seconds"], state["loss"]
        self._params = self._num_params()
        set_random_state(state["random"])
