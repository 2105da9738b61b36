"""Where a run stands, for whoever watches it. Knows no torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """Where a run stands.

    ``loss`` is a running mean of the training loss, the rest is of the last measurement.
    """

    step: int
    total_steps: int
    loss: float
    held_out_loss: float | None
    held_out_metric: float | None
    params: int
