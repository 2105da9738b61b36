"""What ``esper train`` does: train, watch for Ctrl-C, conclude, tell.

Knows torch only through the training package.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from esper.apps.display import make_display
from esper.errors import DataError, RunError
from esper.settings import project_home
from esper.training.ending import conclude
from esper.training.progress import Progress
from esper.training.report import write_report
from esper.training.run import RunFolder, Settings
from esper.training.session import begin, resume
from esper.training.trainer import Trainer
from esper.training.verdict import told, verdict

INTERRUPTED = 130


class Stop:
    """Whether the user has asked to stop."""

    def __init__(self) -> None:
        self.asked = False

    def __call__(self) -> bool:
        """Whether the user has asked to stop."""
        return self.asked


def start(settings: Settings, *, quiet: bool = False) -> int:
    """A new run; the exit code."""
    with _no_exit():
        return _train(begin(settings, project_home()), quiet=quiet)


def go_on(run: RunFolder, *, quiet: bool = False) -> int:
    """An interrupted run, from its last checkpoint; the exit code."""
    with _no_exit():
        return _train(resume(run), quiet=quiet)


@contextmanager
def _no_exit() -> Iterator[None]:
    """Only code of the user's task would end the process from within; a run that did not finish is no success."""
    try:
        yield
    except SystemExit as error:
        raise DataError("the task's own code ended the process (sys.exit); take that out of it") from error


def _train(trainer: Trainer, *, quiet: bool) -> int:
    run = trainer.run
    try:
        with _stop_on_interrupt() as stop, _shown(trainer, quiet=quiet):
            done = trainer.train(should_stop=stop)
        if not done:
            run.change(status="interrupted")
            print(f"Report so far: {write_report(run.path)}")
            print(f"Stopped after step {trainer.step:,}; go on with: esper train --resume {run.name}")
            return INTERRUPTED
        record = conclude(trainer)
    except BaseException:
        with suppress(RunError):  # a full disk refuses this too; what went wrong first is what counts
            run.change(status="failed")
        raise
    finally:
        run.unlock()
    print("\n".join(verdict(record, run.read_events())))
    print(f"Report: {write_report(run.path)}")
    return 0


@contextmanager
def _shown(trainer: Trainer, *, quiet: bool) -> Iterator[None]:
    record = trainer.run.load()
    with make_display(f"{record.task} → {trainer.run.path}", record.metric, quiet=quiet) as display:

        def show(news: object) -> None:
            if isinstance(news, Progress):
                display.progress(news)
            else:
                line = told(news)  # type: ignore[arg-type]
                if line:
                    display.note(line)

        for note in trainer.task.preparation.notes if trainer.task.preparation else ():
            display.note(note)
        if record.growth_off:
            display.note(f"growth is off: {record.growth_off}")
        trainer.listen(show)
        yield


@contextmanager
def _stop_on_interrupt() -> Iterator[Stop]:
    """The first Ctrl-C asks to stop after the step; a second one ends the process at once."""
    stop = Stop()

    def ask(_number: int, _frame: FrameType | None) -> None:
        stop.asked = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)
