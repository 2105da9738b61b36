"""Growth marked in Weights & Biases. Knows no Grower, only its events."""

from __future__ import annotations

import wandb

from esper.events import AnyEvent
from esper.training.callbacks.marks import TEXT, figures_of, text_of


class Marks:
    """Adds events of growth to what the run logs next: ``grower.on_event(Marks(run))``.

    The steps of the run stay the caller's: nothing is committed. The latest figures stand in the run's summary, too,
    and ``growth/changes`` is there all that changed the network. The run is the caller's, to be finished by the caller.
    """

    def __init__(self, run: wandb.Run) -> None:
        self._run = run
        self._changes: list[str] = []

    def __call__(self, event: AnyEvent) -> None:
        """Add one event."""
        figures, text = figures_of(event), text_of(event)
        if text is not None:
            self._changes.append(text)
            self._run.summary[TEXT] = "\n".join(self._changes)
        if figures:
            self._run.log({**figures, "growth/step": event.step}, commit=False)
