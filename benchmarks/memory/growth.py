"""Does growth need fewer trials when it remembers other tasks? Leave one task out, with every honest control.

Every task is first grown without a memory; the decisions of those runs are the memory of the others. A run on a task
then has the episodes of all *other* tasks, the same with the outcomes of the trials shuffled, or those of its own task
with other seeds (shown, not claimed). The features by which situations are compared were chosen on seeds 10 to 13 of
the first four tasks, which are not among those that are run here.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import msgspec

from benchmarks.arms import Plan, Row, Session, Trained, grow, history_note, measured
from benchmarks.command import Options, options
from benchmarks.data import Task, Teacher, digits, mnist1d, noise, planted, spirals
from benchmarks.growers import grower
from benchmarks.networks import mlp
from benchmarks.paired import mean_sd, paired
from benchmarks.pool import Job, run_jobs
from benchmarks.table import Table, publish
from esper import Grower
from esper.events import Attached, Scored, Spared
from esper.growth.episodes import TRIAL, Entry, Places, entries
from esper.growth.run_memory import RunMemory
from esper.memory import Memory

PLAIN, OTHERS, SHUFFLED, SAME = (
    "no memory",
    "memory of other tasks",
    "the same, outcomes shuffled",
    "same task",
)
ARMS = (PLAIN, OTHERS, SHUFFLED, SAME)
STARTS: dict[str, tuple[int, ...]] = {
    "mnist1d": (40, 32, 32, 10),
    "planted": (20, 4, 32, 32, 10),
    "spirals": (2, 4, 2),
    "digits": (64, 8, 10),
    "noise": (64, 8, 10),
}
COLUMNS = ["task: arm", "runs", "trials", "kept", "trials a kept graft", "spared", "GFLOP", "test accuracy"]


@dataclass(frozen=True)
class Setting:
    """What all runs share."""

    folder: Path
    plan: Plan


class Grown(Row, frozen=True, kw_only=True):
    """One run: its trials of grafts, and how many of those grafts were kept; its decisions as episodes."""

    task: str
    trials: int
    kept: int
    spared: int
    episodes: tuple[Entry, ...] = ()


def task_of(name: str, folder: Path, seed: int) -> Task:
    """A task by its name."""
    make: dict[str, Callable[[], Task]] = {
        "mnist1d": lambda: mnist1d(folder),
        "planted": lambda: planted(Teacher(seed=seed)),
        "spirals": lambda: spirals(seed),
        "digits": lambda: digits(seed),
        "noise": lambda: noise(digits(seed), seed),
    }
    return make[name]()


def one_run(name: str, arm: str, setting: Setting, seed: int, remembered: Sequence[Grown]) -> list[Row]:
    """Grow one task with one seed; ``remembered`` are the runs that its memory knows."""
    task = task_of(name, setting.folder, seed)
    build = partial(mlp, STARTS[name])
    with Memory(":memory:") as memory:
        filled = None if arm == PLAIN else _filled(memory, remembered, shuffled=arm == SHUFFLED, seed=seed)

        def growing(session: Session) -> Grower:
            return grower(session, memory=filled)

        trained = grow(build, task.split, setting.plan, seed, growing=growing, counted=True)
    row = measured(f"{name}: {arm}", trained, task, seed, note=history_note(trained))
    return [_grown(row, name, trained)]


def _grown(row: Row, name: str, trained: Trained) -> Grown:
    assert trained.grower is not None
    history = trained.grower.history
    return Grown(
        task=name,
        trials=sum(len(event.chosen) for event in history if isinstance(event, Scored)),
        kept=sum(isinstance(event, Attached) for event in history),
        spared=sum(isinstance(event, Spared) for event in history),
        episodes=tuple(entries(history, Places.of(trained.grower.sites().sites), name)),
        **msgspec.structs.asdict(row),
    )


def _filled(memory: Memory, runs: Sequence[Grown], *, shuffled: bool, seed: int) -> RunMemory:
    """A memory of these runs; shuffling deals the outcomes of all trials out anew."""
    told = [(run, entry) for run in runs for entry in run.episodes]
    if shuffled:
        places = [place for place, (_, entry) in enumerate(told) if _is_trial(entry)]
        outcomes = [told[place][1].outcome for place in places]
        random.Random(seed).shuffle(outcomes)
        for place, outcome in zip(places, outcomes, strict=True):
            run, entry = told[place]
            told[place] = (run, msgspec.structs.replace(entry, outcome=outcome))
    for run, entry in told:
        RunMemory(memory, run=f"{run.task} {run.seed}", trained=run.task).write(entry)
    return RunMemory(memory)


def _is_trial(entry: Entry) -> bool:
    return any(step.tool == TRIAL for step in entry.steps)


def known_to(arm: str, name: str, seed: int, plain: Sequence[Grown]) -> list[Grown]:
    """The runs that the memory of an arm knows: never one of the same task and seed."""
    if arm == SAME:
        return [run for run in plain if run.task == name and run.seed != seed]
    return [run for run in plain if run.task != name]


def all_runs(given: Options, setting: Setting, names: Sequence[str]) -> list[Grown]:
    """First every task without a memory, then every arm that has one."""
    first = [
        Job(f"{name} {seed}", partial(one_run, name, PLAIN, setting, seed, ()))
        for name in names
        for seed in given.seeds
    ]
    plain = _as_grown(run_jobs(first, num_workers=given.jobs))
    second = [
        Job(
            f"{name} {seed}",
            partial(one_run, name, arm, setting, seed, known_to(arm, name, seed, plain)),
        )
        for name in names
        for arm in ARMS[1:]
        for seed in given.seeds
    ]
    return plain + _as_grown(run_jobs(second, num_workers=given.jobs))


def _as_grown(rows: Sequence[Row]) -> list[Grown]:
    return [row for row in rows if isinstance(row, Grown)]


def cells(runs: Sequence[Grown]) -> list[list[str]]:
    """One line an arm over all tasks, then one a task and arm."""
    groups = {f"all: {arm}": [run for run in runs if run.arm.endswith(f": {arm}")] for arm in ARMS}
    groups |= {run.arm: [other for other in runs if other.arm == run.arm] for run in runs}
    return [_line(name, group) for name, group in groups.items() if group]


def _line(name: str, group: Sequence[Grown]) -> list[str]:
    trials, kept = sum(run.trials for run in group), sum(run.kept for run in group)
    return [
        name,
        str(len(group)),
        str(trials),
        str(kept),
        f"{trials / kept:.2f}" if kept else "–",
        str(sum(run.spared for run in group)),
        f"{sum(run.flops for run in group) / 1e9:,.1f}",
        f"{mean_sd([run.test_accuracy for run in group])[0]:.4f}",
    ]


def notes(runs: Sequence[Grown]) -> list[str]:
    """Paired differences a run between each arm and none, over all tasks and seeds."""
    found = []
    for arm in ARMS[1:]:
        for words, value in (
            ("trials", lambda run: float(run.trials)),
            ("kept grafts", lambda run: float(run.kept)),
            ("GFLOP", lambda run: run.flops / 1e9),
            ("test accuracy", lambda run: run.test_accuracy),
        ):
            with_memory, without = (_by_run(runs, wanted, value) for wanted in (arm, PLAIN))
            told = paired(with_memory, without)
            found.append(
                f"{arm} − {PLAIN}, {words} a run: {told.mean:+.4g} ± {told.sd:.2g}, p = {told.p:.2g}"
            )
    return found


def _by_run(runs: Sequence[Grown], arm: str, value: Callable[[Grown], float]) -> dict[int, float]:
    """A value under a number that stands for task and seed."""
    names = list(STARTS)
    return {
        1_000 * names.index(run.task) + run.seed: value(run) for run in runs if run.arm.endswith(f": {arm}")
    }


def table(runs: Sequence[Grown]) -> Table:
    """All arms, and what differs."""
    return Table(
        name="memory_growth",
        title="Growth that remembers other tasks: trials a kept graft, leaving one task out",
        columns=COLUMNS,
        cells=cells(runs),
        notes=notes(runs),
        rows=[msgspec.to_builtins(msgspec.structs.replace(run, episodes=())) for run in runs],
    )


def main() -> None:
    """Run every task and arm, and publish the table."""
    given = options("memory.growth", "Does growth need fewer trials when it remembers other tasks?")
    setting = Setting(given.data, Plan(steps=100 if given.quick else 1_500))
    names = ("spirals", "digits") if given.quick else tuple(STARTS)
    if "mnist1d" in names:
        mnist1d(given.data)
    publish(table(all_runs(given, setting, names)), command=given.command, stored=not given.quick)


if __name__ == "__main__":
    main()
