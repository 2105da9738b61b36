"""Eight processes write to and read from one memory: no error, and nothing is lost.

Each runs three episodes in the suite; ``ESPER_CROWD_ROUNDS=300 pytest tests/memory/faults/test_crowd.py`` keeps them
at it for a minute or more.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from esper.memory import Memory
from esper.memory.stores.store import Filter

ROUNDS = int(os.environ.get("ESPER_CROWD_ROUNDS", "3"))
WORKERS = 8
WORKER = """
import sys
from esper.memory import Memory
location, name, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3])
with Memory(location) as memory:
    uses = 0
    for number in range(rounds):
        with memory.episode("a task of the crowd", domain="crowd") as episode:
            for place in range(3):
                episode.step("tool", f"part {place}", result=f"{name} {number}")
            used = episode.recall("what the crowd does").ids[:1]
            episode.used(*used)
            uses += len(used)
        memory.note(f"note {number} of worker {name}")
        found = memory.get(episode.id)
        assert [step.result for step in found.steps] == [f"{name} {number}"] * 3, found
    print(uses)
"""


@pytest.mark.parametrize("location", ["file", "postgresql"], indirect=True)
def test_a_crowd_of_processes_loses_nothing(location):
    crowd = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(location), str(name), str(ROUNDS)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for name in range(WORKERS)
    ]
    said = [worker.communicate() for worker in crowd]
    assert [errors for _, errors in said] == [""] * WORKERS
    assert [worker.returncode for worker in crowd] == [0] * WORKERS
    with Memory(location) as memory:
        _all_is_there(memory, sum(int(uses) for uses, _ in said))


def _all_is_there(memory, num_uses):
    total = WORKERS * ROUNDS
    counts = memory.store.counts()
    assert (counts["episodes"], counts["open"], counts["notes"]) == (total, 0, total)
    assert counts["exposures"] == total
    patterns = memory.patterns()
    assert patterns
    assert {pattern.tally.occurrences for pattern in patterns} == {total}
    uses = [item.tally.used for item in memory.store.items.find(Filter(), limit=10 * total)]
    assert sum(uses) == num_uses > 0
    assert memory.store.check() == []
