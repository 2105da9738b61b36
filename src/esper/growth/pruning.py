"""One session of pruning after growth: what may go, and in which order. Does not know when."""

from __future__ import annotations

from esper.growth.idle_branches import can_prune_branches, prune_branches
from esper.growth.idle_grafts import can_prune_grafts, prune_grafts
from esper.growth.idle_units import can_prune_units, prune_units
from esper.growth.work import Work
from esper.signals.redundancy import Moments


def can_prune(work: Work) -> bool:
    """Whether there is anything that may be pruned in this run."""
    left = work.setup.pace.prunings > work.tally.prunings
    return left and any(can(work) for can in (can_prune_grafts, can_prune_branches, can_prune_units))


def prune(work: Work, moments: Moments) -> None:
    """Take out what the model does as well without: grafts, residual branches, units, by their ``moments``.

    All is judged against the losses at the beginning, so that what costs little each does not cost much together.
    """
    reference = work.setup.host.losses()
    if can_prune_grafts(work):
        prune_grafts(work, reference)
    if can_prune_branches(work):
        prune_branches(work, reference)
    if can_prune_units(work):
        prune_units(work, reference, moments)
    work.tally.prunings += 1
