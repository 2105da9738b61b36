"""Times in microseconds of other processes: fresh ones, and a crowd on one file. As a script, it is one of them."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

FRESH = 5
READERS = 4
WRITERS = 2
QUESTIONS = 150
EPISODES = 100


def fresh(path: Path) -> dict[str, list[float]]:
    """Importing, opening, the first question and the first episode, each in a process of its own."""
    told = [_result(_started("fresh", path, number)) for number in range(FRESH)]
    return {what: [one[what][0] for one in told] for what in told[0]}


def crowd(path: Path) -> dict[str, list[float]]:
    """Four processes that ask and get while two record, learn and note all the time."""
    writers = [_started("write", path, number) for number in range(WRITERS)]
    readers = [_started("read", path, number) for number in range(READERS)]
    told = [_result(one) for one in (*readers, *writers)]
    return {
        what: [value for one in told for value in one.get(what, [])]
        for what in ("recall", "get", "durable step", "complete")
    }


def _started(kind: str, path: Path, number: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "benchmarks.memory.latency_processes", kind, str(path), str(number)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def _result(process: subprocess.Popen[str]) -> dict[str, list[float]]:
    output, _ = process.communicate()
    if process.returncode:
        raise RuntimeError(f"a process ended with {process.returncode}")
    told: dict[str, list[float]] = json.loads(output)
    return told


def run_fresh(path: str) -> dict[str, list[float]]:
    """What a process pays that has just begun."""
    marks = [time.perf_counter()]
    from esper.memory import Memory

    marks.append(time.perf_counter())
    memory = Memory(path)
    marks.append(time.perf_counter())
    found = memory.recall("fix the baba of bacobi")
    marks.append(time.perf_counter())
    memory.get_many([item for item in found.ids if item] or ["none"])
    marks.append(time.perf_counter())
    memory.close()
    names = ("import esper.memory", "open", "first recall", "first get")
    return {
        name: [1e6 * (after - before)] for name, before, after in zip(names, marks, marks[1:], strict=False)
    }


def run_reader(path: str, number: int) -> dict[str, list[float]]:
    """Questions and episodes by id, one after the other."""
    from benchmarks.memory.generated import question
    from benchmarks.memory.latency_measures import timed
    from esper.memory import Memory

    with Memory(path) as memory:
        ids = [episode.id for episode in memory.episodes(limit=QUESTIONS)]
        asked = range(1_000 * (number + 1), 1_000 * (number + 1) + QUESTIONS)
        return {
            "recall": timed(lambda one=one: memory.recall(question(one)) for one in asked),
            "get": timed(lambda id=id: memory.get(id) for id in ids),
        }


def run_writer(path: str, number: int) -> dict[str, list[float]]:
    """Episodes with durable steps, each learned from."""
    from benchmarks.memory.generated import ended, told
    from benchmarks.memory.latency_measures import timed
    from esper.memory import Memory

    taken: dict[str, list[float]] = {"durable step": [], "complete": []}
    with Memory(path) as memory:
        for place in range(EPISODES):
            one = told(20_000_000 + 1_000 * number + place)
            episode = memory.episode(one.task, task_type=one.task_type, domain=one.domain)
            taken["durable step"] += timed(
                lambda step=step, episode=episode: episode.step(step[0], step[1], error=step[2])
                for step in one.steps
            )
            taken["complete"] += timed([lambda episode=episode, one=one: ended(episode, one)])
    return taken


def main() -> None:
    """Do what the first argument says, and print the times."""
    kind, path, number = sys.argv[1], sys.argv[2], int(sys.argv[3])
    told = (
        run_fresh(path) if kind == "fresh" else (run_reader if kind == "read" else run_writer)(path, number)
    )
    print(json.dumps(told))


if __name__ == "__main__":
    main()
