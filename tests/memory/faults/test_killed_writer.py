"""A writer that is killed loses nothing that it was told is safe, and leaves no half-learned episode.

Three rounds run in the suite; ``ESPER_KILL_ROUNDS=200 pytest tests/memory/faults/test_killed_writer.py`` runs two
hundred on each database.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys

import pytest

from esper.memory import Memory

ROUNDS = int(os.environ.get("ESPER_KILL_ROUNDS", "3"))
WRITER = """
import sys
from esper.memory import Memory
memory = Memory(sys.argv[1])
while True:
    episode = memory.episode("fix the flaky test", domain="ci")
    print("start", episode.id, 0, flush=True)
    for _ in range(4):
        receipt = episode.step("pytest", "run", error="2 failed")
        print("step", episode.id, receipt.number, flush=True)
    episode.succeed("done")
    print("end", episode.id, 4, flush=True)
"""


@pytest.mark.parametrize("seed", range(ROUNDS))
@pytest.mark.parametrize("location", ["file", "postgresql"], indirect=True)
def test_every_acknowledged_step_survives_the_kill_of_its_writer(location, seed):
    acknowledged = _killed_after(random.Random(seed).randrange(1, 120), location)
    with Memory(location) as memory:
        _wait_for_the_server(memory)
        assert memory.store.check() == []
        for word, id, number in acknowledged:
            found = memory.get(id)
            assert len(found.steps) >= number
            assert [step.number for step in found.steps] == list(range(1, len(found.steps) + 1))
            assert found.state == "completed" if word == "end" else True
        _nothing_is_half_learned(memory)
        with memory.episode("the next one") as episode:
            episode.step("tool")


def _wait_for_the_server(memory):
    """It may still be at the dead writer's last statement; a file has no such afterlife."""
    with memory.store.transaction():
        pass


def _killed_after(num_lines, location):
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(location)], stdout=subprocess.PIPE, text=True
    ) as writer:
        lines = [writer.stdout.readline() for _ in range(num_lines)]
        writer.kill()
        lines += writer.stdout.readlines()
    told = [line.split() for line in lines if line.endswith("\n")]
    return [(word, id, int(number)) for word, id, number in told]


def _nothing_is_half_learned(memory):
    completed = [one for one in memory.episodes(limit=10_000) if one.state == "completed"]
    items = memory.store.items.get([one.id for one in completed])
    assert all(one.score and one.reflection for one in completed)
    assert len(items) == len(completed)
    for pattern in memory.patterns():
        assert pattern.tally.occurrences == len(completed)
