"""Growth marked in TensorBoard. Knows no Grower, only its events."""

from __future__ import annotations

from torch.utils.tensorboard import SummaryWriter

from esper.events import AnyEvent
from esper.training.callbacks.marks import TEXT, figures_of, text_of


class Marks:
    """Writes events of growth at their steps: ``grower.on_event(Marks(writer))``.

    The writer is the caller's, to be closed by the caller.
    """

    def __init__(self, writer: SummaryWriter) -> None:
        self._writer = writer

    def __call__(self, event: AnyEvent) -> None:
        """Write one event."""
        for name, value in figures_of(event).items():
            self._writer.add_scalar(name, value, event.step)
        text = text_of(event)
        if text is not None:
            self._writer.add_text(TEXT, text, event.step)
