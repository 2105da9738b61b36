"""How steps reach the store: at once, several threads in one commit, or queued. Does not know what a step says."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, Generic, TypeVar

from esper.errors import EpisodeError, EsperError
from esper.memory.records import Durability

E = TypeVar("E")

MAX_BATCH: Final = 512
"""No transaction holds more entries than this."""


class Writer(Generic[E]):
    """``write`` stores a batch in one transaction.

    With ``max_batch`` above 1 entries are queued until there are so many, ``flush_interval`` seconds have passed, or
    somebody flushes. An entry that a full disk refuses stays queued.
    """

    def __init__(
        self,
        write: Callable[[Sequence[E]], None],
        *,
        durability: Durability = "process",
        max_batch: int = 1,
        flush_interval: float = 1.0,
    ) -> None:
        self._write = write
        self._durability = durability
        self._max_batch = max_batch
        self._interval = flush_interval
        self._queue: deque[E] = deque()
        self._tickets: deque[_Ticket[E]] = deque()
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._closed = False
        self._lost: EpisodeError | None = None
        self._thread: threading.Thread | None = None
        self.put: Callable[[E], Durability] = self._queued if max_batch > 1 else self._at_once

    def _queued(self, entry: E) -> Durability:
        queue = self._queue
        queue.append(entry)
        if len(queue) >= self._max_batch or self._thread is None:
            return self._crowded()
        return "queued"

    def _crowded(self) -> Durability:
        if self._thread is None and not self._closed:
            self._thread = threading.Thread(target=self._flush_now_and_then, name="esper-memory", daemon=True)
            self._thread.start()
        if len(self._queue) < self._max_batch:
            return "queued"
        self.flush()
        return self._durability

    def _at_once(self, entry: E) -> Durability:
        """Whoever holds the lock writes for all that wait: under load, many entries share one commit."""
        ticket = _Ticket(entry)
        self._tickets.append(ticket)
        with self._lock:
            if not ticket.done:
                self._serve([self._tickets.popleft() for _ in range(len(self._tickets))])
        if ticket.error is not None:
            raise ticket.error
        return self._durability

    def _serve(self, tickets: list[_Ticket[E]]) -> None:
        try:
            self._write([ticket.entry for ticket in tickets])
        except EsperError as error:
            if len(tickets) == 1:
                tickets[0].error = error
            else:
                for ticket in tickets:
                    self._serve([ticket])
        for ticket in tickets:
            ticket.done = True

    def flush(self) -> None:
        """Everything queued so far is stored when this returns.

        Raises:
            MemoryStoreError: the store refuses; the entries stay queued.
            EpisodeError: an entry's episode is gone; all other entries are stored.
        """
        with self._lock:
            while self._queue:
                self._drain()
        if self._lost is not None:
            lost, self._lost = self._lost, None
            raise lost

    def _drain(self) -> None:
        batch = [self._queue.popleft() for _ in range(min(len(self._queue), MAX_BATCH))]
        kept = batch
        try:
            self._write(batch)
            kept = []
        except EpisodeError:
            while kept:
                self._write_alone(kept[0])
                kept = kept[1:]
        finally:
            self._queue.extendleft(reversed(kept))

    def _write_alone(self, entry: E) -> None:
        try:
            self._write([entry])
        except EpisodeError as error:
            self._lost = error

    def _flush_now_and_then(self) -> None:
        while not self._wake.wait(self._interval):
            if self._queue:
                try:
                    self.flush()
                except EpisodeError as error:
                    self._lost = error
                except EsperError:
                    continue  # the entries are still queued: who flushes or closes next is told

    def close(self) -> None:
        """Flush, and stop waiting for more."""
        self._closed = True
        self._wake.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()
        self.flush()


class _Ticket(Generic[E]):
    __slots__ = ("done", "entry", "error")

    def __init__(self, entry: E) -> None:
        self.entry = entry
        self.done = False
        self.error: EsperError | None = None
