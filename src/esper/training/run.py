"""The folder of one run: what was asked, what happened, what came out. Knows no model and no torch.

``.esper/runs/<date>-<task>-<id>/`` holds ``run.json``, ``events.jsonl``, ``metrics.jsonl``, ``advice.jsonl``,
``checkpoint/``, ``model/`` and ``report.html``. A process that trains holds a lock on ``lock``, which the
system takes back when it dies.
"""

from __future__ import annotations

import fcntl
import math
import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Self

import msgspec

from esper.errors import RunError
from esper.events import AnyEvent
from esper.training.journal import read_lines

Status = Literal["running", "interrupted", "finished", "failed"]


class Layer(msgspec.Struct, frozen=True, kw_only=True):
    """One leaf module of a network: ``shape_out`` is that of one example, ``path`` where it is in the tree."""

    name: str
    type: str
    shape_out: list[int]
    params: int
    graft: bool = False
    path: str = ""


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """How a run ended; ``test``, ``held_out`` and ``baselines`` are in units of ``metric``.

    MACs are per example.
    """

    metric: str
    test: float
    held_out: float
    test_loss: float
    params_start: int
    params_end: int
    macs_start: int
    macs_end: int
    seconds: float
    baselines: dict[str, float] = msgspec.field(default_factory=dict)


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What the user asked for; enough to make the same task again."""

    source: str
    seed: int = 0
    total_steps: int | None = None
    growth: bool = True
    target: str | None = None
    kind: Literal["classification", "regression"] | None = None
    encoding: str = "utf-8"
    threads: int = 1
    memory: bool = True


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """``run.json``. Fields that are not known yet are ``None``.

    ``growth_off`` says why a run that was to grow trains its network as it is.
    """

    id: str
    task: str
    status: Status
    seed: int
    created: str
    settings: Settings
    versions: dict[str, str]
    data_hash: str
    total_steps: int
    metric: str
    direction: str
    growth_off: str | None = None
    result: Result | None = None
    network_before: list[Layer] | None = None
    network_after: list[Layer] | None = None


class Measured(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line of ``metrics.jsonl``: the training loss of every step; the rest at intervals."""

    step: int
    loss: float | None
    lr: float | None = None
    held_out_loss: float | None = None
    held_out_metric: float | None = None
    params: int | None = None


class RunFolder:
    """A run on disk, by its path."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.metrics = path / "metrics.jsonl"
        self.events = path / "events.jsonl"
        self.advice = path / "advice.jsonl"
        self.checkpoint = path / "checkpoint"
        self.model = path / "model"
        self._lock: int | None = None

    @classmethod
    def create(cls, home: Path, record: Record) -> Self:
        """A new folder under ``home/runs``, locked.

        Raises ``RunError`` when it cannot be.
        """
        path = home / "runs" / f"{record.created[:10]}-{record.task}-{record.id}"
        try:
            path.mkdir(parents=True)
        except OSError as error:
            raise RunError(
                f"cannot make {path}: {error.strerror}; set ESPER_HOME to a folder you may write"
            ) from error
        run = cls(path)
        run.save(record)
        run.lock()
        return run

    @property
    def name(self) -> str:
        """The folder's name, by which commands find it."""
        return self.path.name

    def load(self) -> Record:
        """``run.json``. Raises ``RunError`` when it is missing or damaged."""
        path = self.path / "run.json"
        try:
            return msgspec.json.decode(path.read_bytes(), type=Record)
        except OSError as error:
            raise RunError(f"{self.path} is not a run: cannot read run.json ({error.strerror})") from error
        except msgspec.DecodeError as error:
            raise RunError(f"{path} is damaged: {error}") from error

    def save(self, record: Record) -> None:
        """Replace ``run.json`` in one moment."""
        path, draft = self.path / "run.json", self.path / "run.json.part"
        try:
            draft.write_bytes(msgspec.json.format(msgspec.json.encode(record), indent=2) + b"\n")
            os.replace(draft, path)
        except OSError as error:
            raise RunError(f"cannot write {path}: {error.strerror}") from error

    def change(self, **fields: Any) -> Record:
        """Replace fields of ``run.json``; the new record."""
        record = msgspec.structs.replace(self.load(), **fields)
        self.save(record)
        return record

    def read_events(self) -> list[AnyEvent]:
        """Everything that growth did so far, in order."""
        return [msgspec.convert(_nan_for_null(line), AnyEvent) for line in read_lines(self.events, dict)]

    def read_metrics(self) -> list[Measured]:
        """The measurements so far, in order."""
        return list(read_lines(self.metrics, Measured))

    def has_checkpoint(self) -> bool:
        """Whether training has got as far as its first checkpoint."""
        return (self.checkpoint / "tree.json").exists()

    def status(self) -> Status:
        """The status, where ``running`` means that a process is alive and at it."""
        status = self.load().status
        return "interrupted" if status == "running" and not self.is_locked() else status

    def lock(self) -> None:
        """Claim the run for this process. Raises ``RunError`` when another one trains it."""
        try:
            self._lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RunError(f"run {self.name} is being trained by another process") from error
        except OSError as error:
            raise RunError(f"cannot write in {self.path}: {error.strerror}") from error

    def unlock(self) -> None:
        """Give the claim back."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def is_locked(self) -> bool:
        """Whether some process trains this run."""
        if self._lock is not None:
            return True
        with suppress(FileNotFoundError):
            handle = os.open(self.path / "lock", os.O_RDONLY)
            try:
                fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
            finally:
                os.close(handle)
        return False


def _nan_for_null(value: Any) -> Any:
    """JSON has no nan: a number of an event that was not finite rests as null."""
    match value:
        case None:
            return math.nan
        case dict():
            return {key: _nan_for_null(item) for key, item in value.items()}
        case list():
            return [_nan_for_null(item) for item in value]
    return value


def new_record(settings: Settings, **fields: Any) -> Record:
    """A record of a run that begins now, with an id of its own."""
    created = datetime.now(UTC).isoformat(timespec="milliseconds")
    return Record(
        id=secrets.token_hex(3),
        status="running",
        seed=settings.seed,
        created=created,
        settings=settings,
        **fields,
    )


def runs(home: Path) -> list[RunFolder]:
    """All runs of a project, newest first; one with a damaged ``run.json`` has its place by the day in its name."""
    found = {RunFolder(path.parent): path.parent.name for path in (home / "runs").glob("*/run.json")}
    for folder in found:
        with suppress(RunError):
            found[folder] = folder.load().created
    return sorted(found, key=lambda folder: found[folder], reverse=True)


def find_run(home: Path, name: str) -> RunFolder:
    """A run by ``latest``, its path, its id, or any unambiguous start of id or name.

    Raises ``RunError`` otherwise.
    """
    if (Path(name) / "run.json").is_file():
        return RunFolder(Path(name).absolute())
    known = runs(home)
    if not known:
        raise RunError(f"there are no runs in {home / 'runs'} yet; start one with: esper train mnist1d")
    if name == "latest":
        return known[0]
    fitting = [
        run for run in known if run.name.startswith(name) or run.name.rpartition("-")[2].startswith(name)
    ]
    if len(fitting) == 1:
        return fitting[0]
    exact = [run for run in fitting if name in {run.name, run.name.rpartition("-")[2]}]
    if len(exact) == 1:
        return exact[0]
    shown = ", ".join(run.name for run in (fitting or known)[:5])
    raise RunError(f"{len(fitting) or 'no'} runs fit {name!r}; say one of: {shown}")


def summary(run: RunFolder) -> Mapping[str, Any]:
    """One row of the listing of runs; of a damaged one nothing is known but its name."""
    try:
        record = run.load()
    except RunError:
        known = ("task", "seed", "metric", "test", "params_start", "params_end", "seconds", "created")
        return {"run": run.name, "status": "damaged", **dict.fromkeys(known)}
    result = record.result
    return {
        "run": run.name,
        "task": record.task,
        "status": run.status(),
        "seed": record.seed,
        "metric": record.metric,
        "test": result.test if result else None,
        "params_start": result.params_start if result else None,
        "params_end": result.params_end if result else None,
        "seconds": result.seconds if result else None,
        "created": record.created,
    }
