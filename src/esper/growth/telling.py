"""What the prunings of a run have in common: their share of the margin, and how they are told."""

from __future__ import annotations

from esper.controller.judge import Stake, Verdict
from esper.events import Pruned
from esper.growth.work import Work


def stake_of(work: Work) -> Stake:
    """What this session may cost: what earlier ones may have cost, at the most, is spent."""
    upper = {event.step: event.upper for event in work.history if isinstance(event, Pruned)}
    spent = sum(max(bound, 0.0) for step, bound in upper.items() if step != work.tally.step)
    return Stake(spent, max(work.setup.pace.prunings - work.tally.prunings, 1))


def tell(
    work: Work, what: str, where: str, params: int, verdict: Verdict, *, counts: tuple[int, int] = (1, 1)
) -> None:
    """Emit what has been pruned; ``counts`` are how many, and of how many."""
    work.emit(
        Pruned(
            step=work.tally.step,
            what=what,
            where=where,
            num_removed=counts[0],
            num_units=counts[1],
            params=params,
            increase=-verdict.gain,
            upper=-verdict.lower,
            margin=-verdict.price,
            total_params=work.tally.params,
            total_macs=work.tally.macs,
        )
    )
