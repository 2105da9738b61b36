"""What a terminal shows. The only file that knows rich; everything shown was handed in."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Protocol, Self

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from esper.training.progress import Progress

NUM_NOTES = 6
WIDE = 1_000
"""Columns of an output that is not a terminal: no line of a table is broken."""


class Display(Protocol):
    """Shows a run while it trains; a context manager, so that the terminal is given back whatever happens."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def progress(self, standing: Progress) -> None:
        """Training went one step on."""
        ...

    def note(self, line: str) -> None:
        """Something happened to the network."""
        ...


def make_display(title: str, metric: str, *, quiet: bool = False) -> Display:
    """Live on a terminal, plain lines elsewhere, nothing when ``quiet``."""
    if quiet:
        return Silence()
    return LiveDisplay(title, metric) if sys.stderr.isatty() else PlainDisplay(title, metric)


class Silence:
    """Shows nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def progress(self, standing: Progress) -> None:
        """Nothing."""

    def note(self, line: str) -> None:
        """Nothing."""


class PlainDisplay(Silence):
    """A line at every twentieth of the run, and one for every note."""

    def __init__(self, title: str, metric: str) -> None:
        self._metric = metric
        print(title, file=sys.stderr)

    def progress(self, standing: Progress) -> None:
        """A line, now and then."""
        interval = max(1, standing.total_steps // 20)
        if standing.step % interval == 0 or standing.step == standing.total_steps:
            print(_numbers(standing, self._metric), file=sys.stderr, flush=True)

    def note(self, line: str) -> None:
        """The line."""
        print(f"  {line}", file=sys.stderr, flush=True)


class LiveDisplay(Silence):
    """A bar, the newest numbers and the last few notes, redrawn in place."""

    def __init__(self, title: str, metric: str) -> None:
        self._title = title
        self._metric = metric
        self._standing: Progress | None = None
        self._notes: deque[str] = deque(maxlen=NUM_NOTES)
        self._live = Live(console=Console(stderr=True), refresh_per_second=8, get_renderable=self._draw)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def progress(self, standing: Progress) -> None:
        """Drawn at the next refresh."""
        self._standing = standing

    def note(self, line: str) -> None:
        """Drawn at the next refresh."""
        self._notes.append(line)

    def _draw(self) -> Group:
        parts: list[Any] = [Text(self._title, style="bold")]
        if self._standing is not None:
            bar = ProgressBar(self._standing.total_steps, self._standing.step, width=60)
            parts += [Padding(bar, 0), Text(_numbers(self._standing, self._metric))]
        return Group(*parts, *(_one_line(note) for note in self._notes))


def _one_line(note: str) -> Text:
    style = "green" if " grew at " in note else "dim"
    return Text(f"  {note}", style=style, no_wrap=True, overflow="ellipsis")


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """A table on standard output. Plain and unwrapped when that is not a terminal."""
    table = Table(*columns, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*(escape(_cell(cell)) for cell in row))
    console = Console()
    if not console.is_terminal:
        console.width = WIDE
    console.print(table)


def print_fields(fields: Mapping[str, Any]) -> None:
    """Names and values, one a line, on standard output."""
    width = max(map(len, fields), default=0)
    for name, value in fields.items():
        print(f"{name:<{width}}  {_cell(value)}")


def _cell(value: Any) -> str:
    """Four figures are what people read; ``--json`` has them all."""
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _numbers(standing: Progress, metric: str) -> str:
    parts = [f"step {standing.step:,}/{standing.total_steps:,}", f"loss {standing.loss:.4f}"]
    if standing.held_out_loss is not None:
        parts.append(f"held-out loss {standing.held_out_loss:.4f}")
    if standing.held_out_metric is not None:
        parts.append(f"{metric} {standing.held_out_metric:.4f}")
    return "  ".join([*parts, f"{standing.params:,} parameters"])
