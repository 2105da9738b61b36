"""Times in microseconds of what a memory does, in this process. Does not know how they are printed."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable
from itertools import count
from pathlib import Path
from typing import Any, Literal

import apsw

from benchmarks.memory.generated import ended, fill, question, recorded, told
from esper.memory import Memory
from esper.memory.journal import Options
from esper.memory.recall.static_table import StaticTable

Taken = list[float]
Watch = Callable[[], float]
"""``time.perf_counter``, or ``time.process_time`` where other work on the machine shall not count."""

NEVER = 3_600.0
"""Seconds between flushes: none comes while a measurement runs."""
COMMONEST = 10
_fresh_number = count(10_000_000).__next__


def timed(calls: Iterable[Callable[[], Any]], *, watch: Watch = time.perf_counter) -> Taken:
    """Microseconds of each call."""
    taken = []
    for call in calls:
        start = watch()
        call()
        taken.append(1e6 * (watch() - start))
    return taken


def mean_of(call: Callable[[], Any], number: int, repeats: int, *, watch: Watch = time.perf_counter) -> Taken:
    """Microseconds of one of ``number`` calls in a row, ``repeats`` times: shorter than a clock can tell."""
    taken = []
    for _ in range(repeats):
        start = watch()
        for _ in range(number):
            call()
        taken.append(1e6 * (watch() - start) / number)
    return taken


def plain_sqlite(path: Path) -> tuple[Taken, Taken]:
    """An insert with its commit, and a query by key: what the machine allows."""
    connection = apsw.Connection(str(path))
    for sql in (
        "PRAGMA journal_mode = WAL",
        "PRAGMA synchronous = NORMAL",
        "CREATE TABLE t (k INTEGER PRIMARY KEY, v)",
    ):
        connection.execute(sql).fetchall()
    row = ("x" * 200,)
    inserts = timed(lambda: connection.execute("INSERT INTO t (v) VALUES (?)", row) for _ in range(2_000))
    selects = timed(
        lambda key=key: connection.execute("SELECT v FROM t WHERE k = ?", (key,)).fetchall()
        for key in range(1, 2_001)
    )
    connection.close()
    return inserts, selects


def batched() -> tuple[Taken, Taken]:
    """Starting an episode and a step, queued in memory."""
    with Memory(":memory:", options=Options(max_batch=10**9, flush_interval=NEVER)) as memory:
        starts = mean_of(lambda: memory.episode("fix the flaky test"), 500, 40)
        step = memory.episode("fix the flaky test").step
        return starts, mean_of(lambda: step("pytest", "run"), 500, 40)


def sustained(path: Path | None = None, *, watch: Watch = time.perf_counter) -> Taken:
    """A step with parameters, until the last one of its batch is stored."""
    parameters = {"path": "src/a.py", "line": 3}
    with Memory(path or ":memory:", options=Options(max_batch=512, flush_interval=NEVER)) as memory:
        step = memory.episode("fix the flaky test").step
        return mean_of(
            lambda: step("pytest", "run", parameters=parameters, tokens=100), 5_120, 10, watch=watch
        )


def durable(path: Path, durability: Literal["process", "power"]) -> Taken:
    """A step that is stored when the call returns."""
    with Memory(path, options=Options(durability=durability)) as memory:
        step = memory.episode("fix the flaky test").step
        parameters = {"path": "src/a.py", "line": 3}
        number = 5_000 if durability == "process" else 200
        return timed(lambda: step("pytest", "run", parameters=parameters, tokens=100) for _ in range(number))


def completed(location: str, size: int, number: int, *, watch: Watch = time.perf_counter) -> Taken:
    """The end of an episode of ten steps, everything that it teaches included."""
    options = Options(max_batch=512, flush_interval=NEVER)
    with Memory(location, options=options, namespace="default" if size else "measured") as memory:
        for _ in range(50):
            one = told(_fresh_number())
            ended(recorded(memory, one), one)
        taken = []
        for _ in range(number):
            one = told(_fresh_number())
            episode = recorded(memory, one)
            memory.flush()
            taken += timed([lambda episode=episode, one=one: ended(episode, one)], watch=watch)
        return taken


def recalled(path: Path) -> Taken:
    """Questions that were not asked before; the words that recur are known."""
    with Memory(path) as memory:
        for number in range(100):
            memory.recall(question(number))
        return timed(lambda number=number: memory.recall(question(number)) for number in range(100, 500))


def recalled_by_meaning(path: Path) -> Taken:
    """The same questions by words and meaning; every item has its vector before."""
    with Memory(path, embedder=StaticTable.installed()) as memory:
        memory.embed_again()
        for number in range(100):
            memory.recall(question(number))
        return timed(lambda number=number: memory.recall(question(number)) for number in range(100, 500))


def cached(path: Path) -> Taken:
    """The same question again."""
    with Memory(path) as memory:
        memory.recall(question(0))
        return timed(lambda: memory.recall(question(0)) for _ in range(1_000))


def hit_rates(every: int) -> tuple[float, float]:
    """The share of 2,000 recalls that the query cache answered, where an episode ends after ``every`` recalls.

    And the share of those with one of the ten commonest questions: 200 are asked, the nth 1/n as often as the first.
    """
    dice = random.Random(every)
    often = [1 / place for place in range(1, 201)]
    common: list[bool] = []
    with Memory(":memory:", options=Options(max_batch=512, flush_interval=NEVER)) as memory:
        fill(memory, range(200))
        for number, place in enumerate(dice.choices(range(200), often, k=2_000)):
            found = memory.recall(question(place))
            if place < COMMONEST:
                common.append(found.cached)
            if number % every == every - 1:
                fill(memory, range(1_000 + number, 1_001 + number))
        return memory.cache_report().hit_rate, sum(common) / len(common)


def got(path: Path) -> Taken:
    """An episode with its ten steps, by id."""
    with Memory(path) as memory:
        ids = [episode.id for episode in memory.episodes(limit=500)]
        return timed(lambda id=id: memory.get(id) for id in ids[::-1])
