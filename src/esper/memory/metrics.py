"""Figures for a monitor: how much there is, and how long things take. Knows neither stores nor who reads them."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final, Literal

import msgspec

from esper.memory.identity import Clock, system_clock

Deed = Literal["recall", "complete", "write"]
SECONDS: Final = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
"""Upper ends of the classes of durations."""
BYTES: Final = (1_000.0, 10_000.0, 100_000.0, 1_000_000.0, 10_000_000.0)
"""Upper ends of the classes of sizes."""


class Distribution(msgspec.Struct, frozen=True):
    """How many values lie at or below each of ``ends``, and beyond the last; ``counts`` has one more than ``ends``."""

    ends: tuple[float, ...]
    counts: tuple[int, ...]
    sum: float

    @property
    def count(self) -> int:
        """How many values there are."""
        return sum(self.counts)

    @classmethod
    def of(cls, values: Iterable[float], ends: Sequence[float]) -> Distribution:
        """The distribution of some values."""
        found = _Histogram(ends)
        for value in values:
            found.add(value)
        return found.told()


class Metrics(msgspec.Struct, frozen=True, kw_only=True):
    """What a monitor reads: of one namespace by the database, and of this process since the memory was opened.

    ``episode_size_bytes`` is of the latest completed episodes, with their steps, as stored; a ``write`` is one
    transaction of steps, however many.
    """

    namespace: str
    episodes_stored_total: int
    active_episodes: int
    episode_size_bytes: Distribution
    seconds: Mapping[Deed, Distribution]

    @property
    def text(self) -> str:
        """In the text format of Prometheus."""
        return "".join(f"{line}\n" for line in self._lines())

    def _lines(self) -> Iterator[str]:
        label = f'namespace="{_escaped(self.namespace)}"'
        yield "# TYPE episodes_stored_total counter"
        yield f"episodes_stored_total{{{label}}} {self.episodes_stored_total}"
        yield "# TYPE active_episodes gauge"
        yield f"active_episodes{{{label}}} {self.active_episodes}"
        yield from _histogram("episode_size_bytes", self.episode_size_bytes, label)
        for deed, told in self.seconds.items():
            yield from _histogram(f"{deed}_seconds", told, label)


class Span(msgspec.Struct, frozen=True):
    """Something that was done: when it was over (nanoseconds since the epoch), how long it took, and with what.

    ``ids`` name the episode that was completed, those that a write added to, or a recall's exposure and its episode.
    """

    deed: Deed
    ids: tuple[str, ...]
    at: int
    seconds: float


class Timings:
    """How long what this process did has taken; safe to use from several threads. ``trace`` is told of each."""

    def __init__(self, clock: Clock = system_clock, trace: Callable[[Span], object] | None = None) -> None:
        self._clock = clock
        self._trace = trace
        self._histograms: dict[Deed, _Histogram] = {
            "recall": _Histogram(SECONDS),
            "complete": _Histogram(SECONDS),
            "write": _Histogram(SECONDS),
        }

    def add(self, deed: Deed, seconds: float, ids: Iterable[str]) -> None:
        """Something was done once, with these records; an id counts once."""
        self._histograms[deed].add(seconds)
        if self._trace is not None:
            self._trace(Span(deed, tuple(dict.fromkeys(ids)), self._clock(), seconds))

    def told(self) -> dict[Deed, Distribution]:
        """All durations so far."""
        return {deed: histogram.told() for deed, histogram in self._histograms.items()}


class _Histogram:
    def __init__(self, ends: Sequence[float]) -> None:
        self._ends = tuple(ends)
        self._counts = [0] * (len(ends) + 1)
        self._sum = 0.0
        self._lock = threading.Lock()

    def add(self, value: float) -> None:
        with self._lock:
            self._counts[bisect_left(self._ends, value)] += 1
            self._sum += value

    def told(self) -> Distribution:
        with self._lock:
            return Distribution(self._ends, tuple(self._counts), self._sum)


def _histogram(name: str, told: Distribution, label: str) -> Iterator[str]:
    yield f"# TYPE {name} histogram"
    below = 0
    for end, count in zip((*map(str, told.ends), "+Inf"), told.counts, strict=True):
        below += count
        yield f'{name}_bucket{{{label},le="{end}"}} {below}'
    yield f"{name}_sum{{{label}}} {told.sum}"
    yield f"{name}_count{{{label}}} {told.count}"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
