"""How a memory is doing, and keeping it so: figures, health, audit, backup. Knows the store by its Protocol."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from esper.errors import MemoryStoreError
from esper.memory.hygiene.audit import audit
from esper.memory.hygiene.finding import Finding
from esper.memory.identity import Clock
from esper.memory.metrics import BYTES, Distribution, Metrics, Timings
from esper.memory.stores.sqlite.store import SqliteStore
from esper.memory.stores.store import Filter, Store

LATEST: Final = 200
"""So many of the latest episodes the success is taken of."""
_PROBE: Final = "health"
_FILES: Final = ("", "-wal", "-shm")
"""A SQLite database and what lies beside it while it is open, or after a crash."""


class Stats(msgspec.Struct, frozen=True):
    """Records by kind in one namespace; mean reward and steps of its latest ended episodes; the other namespaces."""

    namespace: str
    counts: dict[str, int]
    num_latest: int
    reward: float | None
    steps: float | None
    tags: dict[str, int]
    namespaces: tuple[str, ...]


class Health(msgspec.Struct, frozen=True):
    """What asking the database showed; times in seconds."""

    problems: tuple[str, ...]
    read_seconds: float
    write_seconds: float

    @property
    def ok(self) -> bool:
        """Whether all is well."""
        return not self.problems


class _RollBack(Exception):  # noqa: N818 - nothing is wrong: it only ends the trial write
    pass


class Upkeep:
    """``flush`` stores what is queued; it runs before anything is counted or copied."""

    def __init__(
        self, store: Store, clock: Clock, namespace: str, flush: Callable[[], None], timings: Timings
    ) -> None:
        self._store = store
        self._timings = timings
        self._clock = clock
        self._namespace = namespace
        self._flush = flush

    def stats(self) -> Stats:
        """Figures of the namespace."""
        self._flush()
        filter = Filter(namespace=self._namespace, state="completed")
        latest = self._store.episodes.find(filter, limit=LATEST)
        rewards = [one.outcome.reward for one in latest if one.outcome]
        return Stats(
            namespace=self._namespace,
            counts=self._store.counts(self._namespace),
            num_latest=len(latest),
            reward=_mean(rewards),
            steps=_mean([one.num_steps for one in latest]),
            tags=self._store.catalogue.tags(),
            namespaces=tuple(self._store.namespaces()),
        )

    def metrics(self) -> Metrics:
        """Figures for a monitor: of the namespace, and of what this process did."""
        self._flush()
        counts = self._store.counts(self._namespace)
        filter = Filter(namespace=self._namespace, state="completed")
        latest = self._store.episodes.find(filter, limit=LATEST)
        sizes = self._store.episodes.sizes([one.id for one in latest]).values()
        return Metrics(
            namespace=self._namespace,
            episodes_stored_total=counts["episodes"] - counts["open"],
            active_episodes=counts["open"],
            episode_size_bytes=Distribution.of(sizes, BYTES),
            seconds=self._timings.told(),
        )

    def health(self) -> Health:
        """Check the whole database, read from it, and write to it in a transaction that is rolled back."""
        begun = time.perf_counter()
        problems = self._tried(self._read)
        read = time.perf_counter()
        problems += self._tried(self._write)
        return Health(tuple(problems), read - begun, time.perf_counter() - read)

    def _tried(self, part: Callable[[], list[str]]) -> list[str]:
        try:
            return part()
        except MemoryStoreError as error:
            return [str(error)]

    def _read(self) -> list[str]:
        self._store.items.search([_PROBE], Filter(namespace=self._namespace), 1)
        return self._store.check()

    def _write(self) -> list[str]:
        self._flush()
        try:
            with self._store.transaction():
                self._store.touch(_PROBE)
                raise _RollBack
        except _RollBack:
            return []

    def audit(self) -> list[Finding]:
        """Duplicates, stale records, loops and secrets of the namespace; reads every record, changes none."""
        self._flush()
        return audit(self._store, self._namespace, self._clock())

    def backup(self, target: Path | str) -> Path:
        """Copy everything into a file, which appears only when it is complete; others may write meanwhile.

        Raises:
            MemoryStoreError: it cannot be written, or is the server's own business; the message says how.
        """
        self._flush()
        self._store.backup(Path(target))
        return Path(target)

    def vacuum(self) -> None:
        """Give unused space back; what was forgotten can then not be found in the file by any means."""
        self._flush()
        self._store.vacuum()


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def restore(backup: Path, target: Path) -> None:
    """Put a copy of a backup in the place of ``target``, which nobody may have open.

    What was there stays beside it as ``<name>.old``; the backup itself is not touched.

    Raises:
        MemoryStoreError: the backup is damaged or not ours, or the place cannot be written; then nothing has changed.
    """
    copy = target.with_name(f"{target.name}.restoring")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(backup, copy)
        _refuse_damaged(copy, backup)
        for ending in _FILES:
            _move(target.with_name(target.name + ending), target.with_name(f"{target.name}.old{ending}"))
        copy.replace(target)
    except OSError as error:
        raise MemoryStoreError(f"cannot restore {backup} to {target}: {error.strerror}") from error
    finally:
        for ending in _FILES:
            copy.with_name(copy.name + ending).unlink(missing_ok=True)


def _refuse_damaged(copy: Path, backup: Path) -> None:
    """Opening the copy, not the backup, leaves the backup as it is: an older one is migrated on opening."""
    try:
        store = SqliteStore(copy)
        try:
            problems = store.check()
        finally:
            store.close()
    except MemoryStoreError as error:
        raise MemoryStoreError(f"{backup} cannot be restored, take another backup: {error}") from error
    if problems:
        raise MemoryStoreError(f"{backup} is damaged, take another backup: {problems[0]}")


def _move(source: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    if source.exists():
        source.replace(target)
