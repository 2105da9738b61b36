"""A deadline and a circuit breaker around an embedder. Does not know what the embedder does."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from esper.errors import EmbeddingError
from esper.memory.recall.embeddings import Embedder, Vectors

DEADLINE: Final = 0.5
FAILURES: Final = 3
REST: Final = 30.0


class CircuitBreaker:
    """Opens after ``failures`` failures in a row; ``rest`` seconds later one call may try again. Thread-safe."""

    def __init__(
        self, *, failures: int = FAILURES, rest: float = REST, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._failures = failures
        self._rest = rest
        self._clock = clock
        self._lock = threading.Lock()
        self._in_a_row = 0
        self._closed_at = float("-inf")

    @property
    def is_open(self) -> bool:
        """Whether calls are refused at the moment."""
        with self._lock:
            return self._refuses()

    def admit(self) -> bool:
        """Whether a call may go through. After a rest the one that asks first may, the others wait for its end."""
        with self._lock:
            if self._refuses():
                return False
            if self._in_a_row >= self._failures:
                self._closed_at = self._clock() + self._rest
            return True

    def succeeded(self) -> None:
        """A call came back well: the circuit is closed."""
        with self._lock:
            self._in_a_row = 0
            self._closed_at = float("-inf")

    def failed(self) -> None:
        """A call failed or came too late."""
        with self._lock:
            self._in_a_row += 1
            if self._in_a_row >= self._failures:
                self._closed_at = self._clock() + self._rest

    def _refuses(self) -> bool:
        return self._clock() < self._closed_at


class GuardedEmbedder:
    """An embedder that answers within ``deadline`` seconds or raises.

    A call that comes too late runs on in its thread, and a process waits for it when it ends: an embedder of
    yours has to come back some day.
    """

    def __init__(
        self, embedder: Embedder, *, deadline: float = DEADLINE, breaker: CircuitBreaker | None = None
    ) -> None:
        self.embedder = embedder
        self.name = embedder.name
        self.dimension = embedder.dimension
        self.breaker = breaker or CircuitBreaker()
        self._deadline = deadline
        self._threads = ThreadPoolExecutor(FAILURES + 1, thread_name_prefix="esper-embed")

    def embed(self, texts: Sequence[str]) -> Vectors:
        """The embedder's vectors.

        Raises:
            EmbeddingError: too late, failed (with its error as the cause), or refused because the circuit is open.
        """
        if not self.breaker.admit():
            raise EmbeddingError(f"{self.name} failed too often and rests")
        answer = self._threads.submit(self.embedder.embed, texts)
        try:
            error = answer.exception(self._deadline)
        except TimeoutError as late:
            answer.cancel()
            self.breaker.failed()
            raise EmbeddingError(f"{self.name} did not answer within {self._deadline} s") from late
        if error is not None:
            self.breaker.failed()
            raise EmbeddingError(f"{self.name} failed: {error}") from error
        self.breaker.succeeded()
        return answer.result()
