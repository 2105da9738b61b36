"""One part of a growth round, and what can come after it. Knows no particular part."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from esper.controller.candidate import Candidate
from esper.events import Signal
from esper.growth.contender import Contender
from esper.growth.work import Work


@dataclass(frozen=True)
class ToRest:
    """Dormant until step ``until``."""

    until: int


@dataclass(frozen=True)
class ToTrim:
    """Ask whether module ``exit`` still needs its own path."""

    exit: str


@dataclass(frozen=True)
class ToSense:
    """Read the signals of all sites."""


@dataclass(frozen=True)
class ToLearn:
    """Let these candidates learn in the shadow."""

    candidates: Sequence[Candidate]
    signals: Sequence[Signal]


@dataclass(frozen=True)
class ToTry:
    """Let these contenders train on the real loss."""

    contenders: Mapping[Candidate, Contender]


@dataclass(frozen=True)
class ToPrune:
    """Take out what is of no use."""


@dataclass(frozen=True)
class ToEnd:
    """No more growth."""


Next = ToRest | ToTrim | ToSense | ToLearn | ToTry | ToPrune | ToEnd


class Phase(ABC):
    """One part of a round. While it is not armed nothing of it is in the model's path.

    ``repeats`` says whether its steps run the closure.
    """

    name: str
    repeats: bool = True

    def __init__(self, work: Work) -> None:
        self.work = work

    @abstractmethod
    def step(self) -> Next | None:
        """Do what is due after an optimizer step; return what comes next, or ``None`` to go on."""

    def stop(self) -> None:  # noqa: B027 - most phases have nothing in the model's path
        """Take everything out of the model's path."""

    def state_dict(self) -> dict[str, Any]:
        """What is needed to continue; plain data and tensors."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:  # noqa: B027 - most states are what they were built from
        """Continue from `state_dict`."""
