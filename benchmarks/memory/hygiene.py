"""Does the memory stay clean? 10,000 generated episodes, one every 50 minutes for most of a year, tidied each 1,000.

``python -m benchmarks.memory.hygiene --publish``. Every tenth episode recalls and uses what came first, so that what is
shown and never used can retire.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import msgspec

from benchmarks.memory.generated import ended, recorded, told
from benchmarks.table import Table, publish
from esper.memory import Memory
from esper.memory.journal import Options
from esper.memory.stores.store import Filter

EPISODES = 10_000
STAGES = (100, 1_000, 10_000)
TIDIED = 1_000
RECALLS = 10
MINUTES = 50
QUESTIONS = 200
COLUMNS = [
    *("episodes", "kB an episode", "patterns", "active", "begun an episode", "equal texts among patterns"),
    *("equal texts in a recall", "exposures"),
]


class Calendar:
    """A clock that moves a microsecond at each look, and to each episode's own time."""

    def __init__(self) -> None:
        self.now = 1_800_000_000 * 10**9

    def __call__(self) -> int:
        self.now += 1_000
        return self.now

    def go_on(self) -> None:
        """To the next episode."""
        self.now += MINUTES * 60 * 10**9


class Stage(msgspec.Struct, kw_only=True):
    """What a memory of so many episodes holds."""

    episodes: int
    kilobytes: float
    patterns: int
    active: int
    begun: float
    equal_patterns: int
    equal_recalled: float
    exposures: int

    def cells(self) -> list[str]:
        """As it is printed."""
        return [
            *(f"{self.episodes:,}", f"{self.kilobytes / self.episodes:.2f}", f"{self.patterns:,}"),
            *(f"{self.active:,}", f"{self.begun:.2f}", f"{self.equal_patterns:,}"),
            *(f"{self.equal_recalled:.1%}", f"{self.exposures:,}"),
        ]


def live(memory: Memory, calendar: Calendar, numbers: range) -> None:
    """Record, learn, now and then recall and use, and tidy up."""
    for number in numbers:
        calendar.go_on()
        one = told(number)
        episode = recorded(memory, one)
        if number % RECALLS == 0:
            episode.used(*episode.recall(one.task).ids[:1])
        ended(episode, one)
        if number % TIDIED == TIDIED - 1:
            memory.maintain()


def repeats(texts: Sequence[str]) -> int:
    """How many texts were there before."""
    return len(texts) - len(set(texts))


def stage(memory: Memory, path: Path, episodes: int, before: Stage | None) -> Stage:
    """Look at everything; ``before`` is the stage from which patterns are counted as begun."""
    patterns = memory.patterns(limit=10**9)
    recalls = [memory.recall(told(number * 37 % episodes).task) for number in range(QUESTIONS)]
    texts = [[answer.item.lesson.text for answer in recall.answers] for recall in recalls]
    memory.store.vacuum()
    known = (before.patterns, before.episodes) if before else (0, 0)
    return Stage(
        episodes=episodes,
        kilobytes=path.stat().st_size / 1e3,
        patterns=len(patterns),
        active=sum(pattern.tally.state == "active" for pattern in patterns),
        begun=(len(patterns) - known[0]) / (episodes - known[1]),
        equal_patterns=repeats([pattern.lesson.text for pattern in patterns]),
        equal_recalled=sum(map(repeats, texts)) / max(1, sum(map(len, texts))),
        exposures=memory.store.counts()["exposures"],
    )


def stages(path: Path, sizes: Sequence[int]) -> list[Stage]:
    """The memory at each of these sizes."""
    calendar = Calendar()
    made: list[Stage] = []
    with Memory(path, options=Options(max_batch=512), clock=calendar) as memory:
        for begin, end in pairwise((0, *sizes)):
            live(memory, calendar, range(begin, end))
            memory.flush()
            made.append(stage(memory, path, end, made[-1] if made else None))
        assert memory.store.check() == []
        assert len(memory.store.episodes.find(Filter(), limit=10**9)) == sizes[-1]
    return made


def main() -> None:
    """Print the table; ``--publish`` stores it."""
    parser = argparse.ArgumentParser("python -m benchmarks.memory.hygiene", description=__doc__)
    parser.add_argument("--largest", type=int, default=EPISODES, help="episodes at most (%(default)s)")
    parser.add_argument("--publish", action="store_true", help="store the table in results/ and the README")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        made = stages(Path(folder) / "memory.db", [size for size in STAGES if size <= given.largest])
    table = Table(
        name="memory_hygiene",
        title="What a memory keeps of 10,000 episodes",
        columns=COLUMNS,
        cells=[one.cells() for one in made],
        notes=[
            "equal texts: how many say what another said before; of patterns, and of the five answers to a task"
        ],
        rows=[msgspec.structs.asdict(one) for one in made],
    )
    publish(table, command="python -m benchmarks.memory.hygiene --publish", stored=given.publish)


if __name__ == "__main__":
    main()
