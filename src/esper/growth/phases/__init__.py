"""The parts of a growth round: ``Rest → Trim → Sense → Learn → Try → Rest``, then ``Prune`` and ``Over``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from esper.controller.candidate import Candidate
from esper.errors import CheckpointError
from esper.events import Signal
from esper.growth.phases.attempt import Try
from esper.growth.phases.learn import Learn
from esper.growth.phases.phase import Next, Phase, ToLearn, ToPrune, ToRest, ToSense, ToTrim, ToTry
from esper.growth.phases.prune import Prune
from esper.growth.phases.rest import Over, Rest
from esper.growth.phases.sense import Sense
from esper.growth.phases.trim import Trim
from esper.growth.work import Work

__all__ = ["Over", "Phase", "Rest", "begin", "check_offered", "resume"]


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
        case ToPrune():
            return Prune(work)
        case _:
            return Over(work)


def resume(work: Work, state: Mapping[str, Any]) -> Phase:
    """The phase that `Phase.state_dict` was taken of; ``work`` must be as it was then.

    Raises CheckpointError when the recipes, the sites or the budget differ from those of then.
    """
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
            phase = Learn(work, _candidates(work, state["candidates"]), signals)
        case Try.name:
            chosen = _candidates(work, state["contenders"])
            phase = Try(work, {c: work.contender(c.name, [work.birth(c)]) for c in chosen})
        case Trim.name:
            phase = Trim(work, state["exit"])
        case Prune.name:
            phase = Prune(work)
        case other:
            raise CheckpointError(
                f"unknown phase of growth {other!r}: the checkpoint is of a newer version of esper"
            )
    phase.load_state_dict(dict(state))
    return phase


def check_offered(work: Work, state: Mapping[str, Any]) -> None:
    """Raises CheckpointError when `resume` would, for lack of a recipe or site; ``work`` must be as it was then."""
    _candidates(work, (*state.get("candidates", ()), *state.get("contenders", ())))


def _candidates(work: Work, names: Iterable[str]) -> list[Candidate]:
    offered = {c.name: c for c in work.view(()).candidates}
    wanted = list(names)
    missing = [name for name in wanted if name not in offered]
    if missing:
        raise CheckpointError(
            f"the growth state is in the middle of trying {', '.join(missing)}, which this grower does not offer: "
            "give Grower the recipes, sites and budget of the run that was stored"
        )
    return [offered[name] for name in wanted]
