"""A snapshot of everything that training moves, and the way back to it. Does not know why one goes back."""

from __future__ import annotations

import copy
import random
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from esper.growth.host import Host
from esper.growth.optimizers import copied, state_of
from esper.growth.training import Training, inner
from esper.surgery.graft import Graft, all_cuts, detach, grafts_of, undo_cuts
from esper.surgery.isolation import remembered


@dataclass
class Snapshot:
    """Model, optimizer, scheduler, scaler, averages and random state at one step, bit for bit.

    The parameters present at the snapshot must still be the same objects when it is put back, and grafts attached
    since must be gone. Parameter groups that the optimizer was given since stay, without any state.
    """

    training: Training
    step: int
    tensors: list[Tensor]
    attributes: list[Callable[[], None]]
    groups: list[dict[str, Any]]
    states: list[dict[str, Any]]
    companions: list[dict[str, Any]]
    random: dict[str, Any]

    def __post_init__(self) -> None:
        self._places = _tensors(self.training)
        self._params = [list(group["params"]) for group in self.training.optimizer.param_groups]
        self._cuts = [all_cuts(module) for module in _modules(self.training)]

    @classmethod
    def taken(cls, training: Training, step: int) -> Snapshot:
        """A snapshot of what is now."""
        order = [p for group in training.optimizer.param_groups for p in group["params"]]
        return cls(
            training,
            step,
            tensors=[t.detach().clone() for t in _tensors(training)],
            attributes=[remembered(module) for module in (training.model, *training.averaged)],
            groups=[_options(group) for group in training.optimizer.param_groups],
            states=state_of(training.optimizer, order),
            companions=[copy.deepcopy(c.state_dict()) for c in training.companions],
            random=random_state(),
        )

    @classmethod
    def from_state(cls, training: Training, state: dict[str, Any]) -> Snapshot:
        """A snapshot saved by another process, for the same model in the state just before the graft.

        Attributes of modules that are no buffers are not in it, as they are not in a model's state dict.
        """
        return cls(training, attributes=[], **state)

    @property
    def is_of_other_groups(self) -> bool:
        """Whether parameter groups that it knows have been taken out of the optimizer."""
        return len(self.training.optimizer.param_groups) < len(self.groups)

    @torch.no_grad()
    def restore(self) -> None:
        """Put everything back to the bit."""
        for put_back in self.attributes:
            put_back()
        for module, cuts in zip(_modules(self.training), self._cuts, strict=True):
            undo_cuts(module, keep=cuts)
        for tensor, value in zip(self._places, self.tensors, strict=True):
            tensor.copy_(value)
        for weight in self.training.model.parameters():
            weight.grad = None
        self._restore_optimizer()
        for companion, saved in zip(self.training.companions, self.companions, strict=True):
            companion.load_state_dict(copy.deepcopy(saved))
        set_random_state(self.random)

    def state_dict(self) -> dict[str, Any]:
        """Plain data and tensors, in the order of the model's tensors and the optimizer's parameters."""
        names = ("step", "tensors", "groups", "states", "companions", "random")
        return {name: vars(self)[name] for name in names}

    def _restore_optimizer(self) -> None:
        optimizer = self.training.optimizer
        known = zip(
            optimizer.param_groups, self.groups, self._params, strict=False
        )  # others were added since
        for group, options, params in known:
            group.update(copy.deepcopy(options))
            group["params"][:] = params
        optimizer.state.clear()
        for parameter, state in zip(chain.from_iterable(self._params), self.states, strict=True):
            if state:
                optimizer.state[parameter] = copied(state)


def random_state() -> dict[str, Any]:
    """The random streams of torch (every device in use), ``random`` and NumPy's global generator, as plain data."""
    version, words, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    return {
        "torch": torch.get_rng_state(),
        "cuda": list(cuda),
        "python": [version, list(words), gauss],
        "numpy": [
            str(name),
            torch.from_numpy(np.asarray(keys).astype(np.int64)),
            position,
            has_gauss,
            cached,
        ],
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Continue from `random_state`."""
    torch.set_rng_state(state["torch"])
    if state["cuda"]:
        torch.cuda.set_rng_state_all(state["cuda"])
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached))


def _modules(training: Training) -> list[nn.Module]:
    """The model and its averages: what grafts are attached to."""
    return [training.model, *map(inner, training.averaged)]


def _tensors(training: Training) -> list[Tensor]:
    modules = (training.model, *training.averaged)
    return [t for module in modules for t in (*module.parameters(), *module.buffers())]


def _options(group: dict[str, Any]) -> dict[str, Any]:
    return copy.deepcopy({name: value for name, value in group.items() if name != "params"})


class Guard:
    """Watches the model for a while after an attachment; a loss that explodes puts all of it back.

    The held-out loss is read every ``EVERY`` steps for ``WATCH`` steps. It has exploded when it is not finite, or has
    risen by more than ``SIGMAS`` standard deviations of the per-example losses and by more than ``TIMES`` itself.
    """

    EVERY = 25
    WATCH = 100
    SIGMAS = 10.0
    TIMES = 3.0  # losses that are all alike, those of a generator for one, move far in standard deviations

    def __init__(self, training: Training, host: Host) -> None:
        self._training = training
        self._host = host
        self._snapshot: Snapshot | None = None
        self._limit = 0.0
        self._grafts: list[tuple[nn.Module, Graft]] = []

    @property
    def since(self) -> int | None:
        """Step of the snapshot while the guard is watching."""
        return None if self._snapshot is None else self._snapshot.step

    def before_attach(self, step: int) -> None:
        """Take the snapshot."""
        losses = self._host.losses()
        mean = float(losses.mean())
        self._limit = mean + max(self.SIGMAS * float(losses.std()), self.TIMES * abs(mean))
        self._snapshot = Snapshot.taken(self._training, step)

    def after_attach(self, exit_name: str) -> None:
        """Remember what to take out again: the latest graft at ``exit_name``, in the model and in its averages."""
        self._grafts = [(module, grafts_of(module, exit_name)[-1]) for module in _modules(self._training)]

    def trouble(self, step: int) -> str | None:
        """Why the latest attachment must be undone; ``None`` when all is well or nothing is watched.

        Warns, and watches no longer, when parameter groups were taken out of the optimizer meanwhile.
        """
        if self._snapshot is None or (step - self._snapshot.step) % self.EVERY:
            return None
        if self._snapshot.is_of_other_groups:
            warnings.warn(
                f"parameter groups were taken out of the optimizer after a graft was attached at step "
                f"{self._snapshot.step}: that can no longer be undone, and is not watched any more",
                stacklevel=4,
            )
            self.dismiss()
            return None
        loss = float(self._host.losses().mean())
        if not loss <= self._limit:
            return f"the held-out loss went to {loss:.4g}; up to {self._limit:.4g} was expected"
        if step - self._snapshot.step >= self.WATCH:
            self.dismiss()
        return None

    def undo(self) -> None:
        """Take the graft out and put everything back as it was at the snapshot, cuts since included, to the bit."""
        assert self._snapshot is not None
        for module, graft in self._grafts:
            detach(module, graft)
        self._snapshot.restore()
        self.dismiss()

    def dismiss(self) -> None:
        """Stop watching and free the snapshot."""
        self._snapshot, self._grafts = None, []

    def state_dict(self) -> dict[str, Any] | None:
        """Snapshot and limit while watching, else ``None``."""
        if self._snapshot is None:
            return None
        return {"limit": self._limit, "snapshot": self._snapshot.state_dict()}

    def load_before_attach(self, state: dict[str, Any]) -> None:
        """Continue to watch: call it when the model is as it was just before the watched graft was attached."""
        self._limit = state["limit"]
        self._snapshot = Snapshot.from_state(self._training, state["snapshot"])
