"""The parts of a growth round: ``Rest → Trim → Sense → Learn → Try → Rest``, and ``Over``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from esper.errors import CheckpointError
from esper.events import Signal
from esper.growth.phases.attempt import Try
from esper.growth.phases.learn import Learn
from esper.growth.phases.phase import Next, Phase, ToLearn, ToRest, ToSense, ToTrim, ToTry
from esper.growth.phases.rest import Over, Rest
from esper.growth.phases.sense import Sense
from esper.growth.phases.trim import Trim
from esper.growth.work import Work

__all__ = ["Over", "Phase", "Rest", "begin", "resume"]


def begin(work: Work, following: Next) -> Phase:
    """The phase that a plan asks for, ready for the next step."""
    match following:
        case ToRest(until):
            return Rest(work, until)
        case ToTrim(exit_name):
            return Trim(work, exit_name)
        case ToSense():
            return Sense(work)
        case ToLearn(candidates, signals):
            return Learn(work, candidates, signals)
        case ToTry(contenders):
            return Try(work, contenders)
        case _:
            return Over(work)


def resume(work: Work, state: Mapping[str, Any]) -> Phase:
    """The phase that `Phase.state_dict` was taken of; ``work`` must be as it was then."""
    candidates = {c.name: c for c in work.view(()).candidates}
    phase: Phase
    match state["name"]:
        case Rest.name:
            phase = Rest(work, 0)
        case Over.name:
            phase = Over(work)
        case Sense.name:
            phase = Sense(work)
        case Learn.name:
            signals = msgspec.convert(state["signals"], tuple[Signal, ...])
            phase = Learn(work, [candidates[name] for name in state["candidates"]], signals)
        case Try.name:
            chosen = [candidates[name] for name in state["contenders"]]
            phase = Try(work, {c: work.contender(c.name, [work.birth(c)]) for c in chosen})
        case Trim.name:
            phase = Trim(work, state["exit"])
        case other:
            raise CheckpointError(
                f"unknown phase of growth {other!r}: the checkpoint is of a newer version of esper"
            )
    phase.load_state_dict(dict(state))
    return phase
