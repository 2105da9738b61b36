"""tau-bench's airline runs as episodes: same-task retrieval, patterns that hold on held-out runs, recovery from errors.

The memory learns from the runs of trials 0 to 2; what it found is held against those of trial 3, which it never saw.
``python -m benchmarks.memory.episodes --data FOLDER`` (the folder that holds ``tau_airline_gpt4o.json``).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import msgspec

from benchmarks.memory.measures import interval, mean, measure
from benchmarks.memory.replay import Run, found, read_runs, record, shuffled
from benchmarks.table import Table, publish
from esper.memory import Memory
from esper.memory.learning.course import Course
from esper.memory.learning.induce import KINDS, observe
from esper.memory.learning.patterns import towards
from esper.memory.learning.recoveries import recoveries
from esper.memory.records import Episode, Item, PatternKind
from esper.memory.stores.store import Filter

HELD_OUT = 3
OFTEN = 3
EPISODES = Filter(namespace="default", kinds=("episode",))


class Held(msgspec.Struct, frozen=True):
    """One pattern: the success that the memory tells of it, and the rewards where held-out runs show it again."""

    kind: PatternKind
    told: float
    rewards: tuple[float, ...]


def retrieval(runs: Sequence[Run]) -> list[str]:
    """Same-task retrieval by the opening message, each run among all others."""
    with Memory(":memory:") as memory:
        ids = [record(memory, run).id for run in runs]
        measured = []
        for run, own in zip(runs, ids, strict=True):
            grades = {
                id: 1 for id, other in zip(ids, runs, strict=True) if other.task == run.task and id != own
            }
            ranked = found(memory.recall(run.opening, k=12, filter=EPISODES))
            measured.append(measure([id for id in ranked if id != own], grades))
    low, high = interval(measured, "r10")
    return [
        f"same-task retrieval over {len(runs)} runs: R@10 {mean(measured, 'r10'):.3f} ({low:.3f} to {high:.3f}), "
        f"R@1 {mean(measured, 'r1'):.3f}, nDCG@10 {mean(measured, 'ndcg10'):.3f}"
    ]


def learned(runs: Sequence[Run]) -> list[Item]:
    """The patterns that the memory finds in these runs."""
    with Memory(":memory:") as memory:
        for run in runs:
            record(memory, run)
        return memory.patterns(limit=100_000)


def recorded(runs: Sequence[Run]) -> list[Episode]:
    """Runs as ended episodes, in a memory that nobody asks."""
    with Memory(":memory:") as memory:
        return [record(memory, run) for run in runs]


def held(patterns: Sequence[Item], episodes: Sequence[Episode]) -> list[Held]:
    """Each pattern with what it came to in the held-out episodes."""
    shown: dict[int, list[float]] = {}
    for episode in episodes:
        assert episode.outcome is not None
        for signature, (_, seen) in observe(Course(episode), episode.outcome.reward).items():
            shown.setdefault(signature, []).append(seen.reward)
    return [
        Held(
            item.pattern,
            _told(item),
            tuple(towards(item.pattern, reward) for reward in shown.get(item.signature, ())),
        )
        for item in patterns
        if item.pattern is not None and item.signature is not None
    ]


def _told(item: Item) -> float:
    return (1.0 + item.tally.successes) / (2.0 + item.tally.successes + item.tally.failures)


def lines(patterns: Sequence[Held]) -> list[list[str]]:
    """A line a kind; a pattern is right when it is above (or below) the middle of its kind both as told and as seen."""
    cells = []
    for kind in sorted({one.kind for one in patterns}):
        ours = [one for one in patterns if one.kind == kind]
        again = [one for one in ours if one.rewards]
        often = [one for one in ours if len(one.rewards) >= OFTEN]
        told = _middle([one.told for one in often])
        seen = _middle([_mean(one.rewards) for one in often])
        right = sum((one.told >= told) == (_mean(one.rewards) >= seen) for one in often)
        cells.append(
            [
                kind,
                str(len(ours)),
                str(len(again)),
                str(len(often)),
                f"{right} of {len(often)}",
                _errors(often),
            ]
        )
    return cells


def _errors(often: Sequence[Held]) -> str:
    """Mean absolute error of the success that was told, and of the mean over the kind."""
    if not often:
        return "–"
    told = _mean([abs(one.told - _mean(one.rewards)) for one in often])
    usual = _mean([one.told for one in often])
    plain = _mean([abs(usual - _mean(one.rewards)) for one in often])
    return f"{told:.3f} / {plain:.3f}"


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _middle(values: Sequence[float]) -> float:
    return sorted(values)[len(values) // 2] if values else 0.0


def recovery(patterns: Sequence[Item], episodes: Sequence[Episode]) -> list[str]:
    """Of the errors that held-out runs recovered from: how many were known, and how often the cure was the same."""
    known: dict[str, set[tuple[str, ...]]] = {}
    for item in patterns:
        if item.pattern == "recovery":
            known.setdefault(item.lesson.condition, set()).add(item.lesson.actions)
    shown = [shown for episode in episodes for shown in recoveries(Course(episode), 1.0)]
    cures = [one for one, _, _, cured in shown if cured]
    met = [one for one in cures if one.condition in known]
    same = [one for one in met if one.actions in known[one.condition]]
    errors = sum(step.error is not None for episode in episodes for step in episode.steps)
    return [
        f"held-out errors: {errors}; cured in the run: {len(cures)}; of these the error was known: {len(met)}, "
        f"and the cure among those remembered: {len(same)}"
    ]


def table(runs: Sequence[Run]) -> Table:
    """Patterns by kind, with retrieval and recovery as notes."""
    seen = [run for run in runs if run.trial < HELD_OUT]
    episodes = recorded([run for run in runs if run.trial == HELD_OUT])
    patterns = learned(shuffled(seen, 0))
    return Table(
        name="memory_episodes",
        title="tau-bench airline: what is found in three trials, and how much of it holds in the fourth",
        columns=[
            "pattern",
            "found",
            "seen again",
            f"in at least {OFTEN} runs",
            "on the right side of the middle",
            "error told / kind's mean",
        ],
        cells=lines(held(patterns, episodes)),
        notes=[*retrieval(runs), *recovery(patterns, episodes), f"kinds looked for: {len(KINDS)}"],
    )


def main() -> None:
    """Print the table, and keep it unless the run is quick."""
    parser = argparse.ArgumentParser("python -m benchmarks.memory.episodes", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with the runs")
    parser.add_argument("--quick", action="store_true", help="twelve tasks, and nothing is stored")
    given = parser.parse_args()
    runs = [run for run in read_runs(given.data) if not given.quick or run.task < 12]
    line = "python -m benchmarks.memory.episodes --data FOLDER"
    publish(table(runs), command=line, stored=not given.quick)


if __name__ == "__main__":
    main()
