"""Answers to questions that were asked before, while nothing has changed. Does not know what an answer is."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable
from typing import Final, Generic, TypeVar

import msgspec

from esper.memory.identity import Clock

V = TypeVar("V")

SIZE: Final = 1_024
TIME_TO_LIVE: Final = 300 * 10**9


class CacheReport(msgspec.Struct, frozen=True):
    """How often an answer was there."""

    hits: int
    misses: int

    @property
    def hit_rate(self) -> float:
        """Hits among all questions; 0 before the first."""
        asked = self.hits + self.misses
        return self.hits / asked if asked else 0.0


class QueryCache(Generic[V]):
    """Keeps the ``size`` latest used values; each holds for its stamp, and at most ``time_to_live`` nanoseconds."""

    def __init__(self, clock: Clock, *, size: int = SIZE, time_to_live: int = TIME_TO_LIVE) -> None:
        self._clock = clock
        self._size = size
        self._time_to_live = time_to_live
        self._kept: OrderedDict[Hashable, tuple[Hashable, int, V]] = OrderedDict()
        self._lock = threading.Lock()
        self._hits = 0
        self._misses = 0

    def get(self, key: Hashable, stamp: Hashable) -> V | None:
        """The value that was put under this key and stamp."""
        with self._lock:
            kept = self._kept.get(key)
            if kept is None or kept[0] != stamp or self._clock() - kept[1] >= self._time_to_live:
                self._misses += 1
                return None
            self._kept.move_to_end(key)
            self._hits += 1
            return kept[2]

    def put(self, key: Hashable, stamp: Hashable, value: V) -> None:
        """Keep a value; the one used longest ago makes room."""
        with self._lock:
            self._kept[key] = (stamp, self._clock(), value)
            self._kept.move_to_end(key)
            if len(self._kept) > self._size:
                self._kept.popitem(last=False)

    def report(self) -> CacheReport:
        """Hits and misses so far."""
        return CacheReport(self._hits, self._misses)
