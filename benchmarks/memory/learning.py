"""Does a memory that watched earlier runs know more about the next? And does an agent that follows it do better?

*Replay*: tau-bench's airline runs, by trial, within one in ten orders of chance. Before a run is recorded, its outcome
and each next tool are predicted, with the memory and without it. Without: the success so far, and the tool that so far
followed the last one most often; both learn, but remember no run. *Simulator*: an agent does what ``memory.advise``
recommends, in situations where the effect of each action is known; in one arm a tenth of the memories are poisoned.
``python -m benchmarks.memory.learning --data FOLDER`` (the folder that holds ``tau_airline_gpt4o.json``).
"""

from __future__ import annotations

import argparse
import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from benchmarks.memory.replay import Run, found, read_runs, record, shuffled
from benchmarks.paired import mean_sd
from benchmarks.table import Table, publish
from esper.memory import Memory
from esper.memory.recall.advise import Advice
from esper.memory.stores.store import Filter

EPISODES = Filter(namespace="default", kinds=("episode",))
NEIGHBOURS = 3
PRIOR = 2.0
RESAMPLES = 2_000
START = "at the start"

SITUATIONS, ACTIONS = 4, 5
POISONED = 0.1
CHANCE, FIRST, UPPER = "chance", "the first recommendation", "the highest upper end"
ARMS = (CHANCE, FIRST, f"{FIRST}, poisoned", UPPER, f"{UPPER}, poisoned")


class Guess(msgspec.Struct, frozen=True):
    """What was predicted of one run: squared errors of its outcome, and the share of next tools that were right."""

    task: int
    trial: int
    brier: float
    brier_without: float
    tools: float
    tools_without: float


class Played(msgspec.Struct, frozen=True):
    """One simulated life: regret in successes lost against the best action, and how often it was chosen at the end."""

    arm: str
    seed: int
    regret: float
    best_at_end: float


class Habits:
    """What follows a tool most often, over all runs so far; ties by name."""

    def __init__(self) -> None:
        self._next: dict[str, Counter[str]] = defaultdict(Counter)

    def see(self, tools: Sequence[str]) -> None:
        """One run."""
        for last, following in zip((START, *tools), tools, strict=False):
            self._next[last][following] += 1

    def guess(self, last: str) -> str:
        """The most frequent tool after ``last``; empty when that was never seen."""
        counts = self._next[last]
        return min(counts, key=lambda name: (-counts[name], name), default="")


def replay(runs: Sequence[Run]) -> list[Guess]:
    """Predict and then record, one run after the other."""
    habits, success, guesses = Habits(), [1.0, 2.0], []
    by_id: dict[str, Run] = {}
    with Memory(":memory:") as memory:
        for run in runs:
            recalled = found(memory.recall(run.opening, k=NEIGHBOURS, filter=EPISODES))
            near = [by_id[id] for id in recalled[:NEIGHBOURS]]
            usual = success[0] / success[1]
            chance = (PRIOR * usual + sum(one.reward for one in near)) / (PRIOR + len(near))
            tools = tuple(call.tool for call in run.calls)
            guesses.append(
                Guess(
                    task=run.task,
                    trial=run.trial,
                    brier=(chance - run.reward) ** 2,
                    brier_without=(usual - run.reward) ** 2,
                    tools=_right(tools, habits, near),
                    tools_without=_right(tools, habits, ()),
                )
            )
            by_id[record(memory, run).id] = run
            habits.see(tools)
            success = [success[0] + run.reward, success[1] + 1.0]
    return guesses


def _right(tools: Sequence[str], habits: Habits, near: Sequence[Run]) -> float:
    """Share of the tools that were foreseen: by what followed in the runs that are near, else by habit."""
    own = Habits()
    for run in near:
        own.see([call.tool for call in run.calls])
    if not tools:
        return 1.0
    lasts = (START, *tools[:-1])
    hits = [(own.guess(last) or habits.guess(last)) == tool for last, tool in zip(lasts, tools, strict=True)]
    return sum(hits) / len(hits)


def difference(guesses: Sequence[Guess], first: str, second: str) -> str:
    """Mean difference with a 95 % bootstrap interval over tasks, which are what is independent."""
    by_task: dict[int, list[float]] = defaultdict(list)
    for guess in guesses:
        told = msgspec.structs.asdict(guess)
        by_task[guess.task].append(told[first] - told[second])
    values = np.array([np.mean(task) for task in by_task.values()])
    drawn = np.random.default_rng(0).integers(len(values), size=(RESAMPLES, len(values)))
    low, high = np.quantile(values[drawn].mean(axis=1), [0.025, 0.975])
    return f"{values.mean():+.4f} ({low:+.4f} to {high:+.4f})"


def life(arm: str, seed: int, rounds: int) -> Played:
    """An agent that does what its arm says; successes are drawn from known chances."""
    lot = random.Random(seed)
    chances = [[lot.uniform(0.1, 0.9) for _ in range(ACTIONS)] for _ in range(SITUATIONS)]
    names = [f"action {number}" for number in range(ACTIONS)]
    lost, chosen_best = 0.0, []
    with Memory(":memory:") as memory:
        for _ in range(rounds):
            situation = lot.randrange(SITUATIONS)
            context = {"kind": f"kind {situation}"}
            name = lot.choice(names) if arm == CHANCE else _followed(memory.advise(context, names), arm)
            chance = chances[situation][names.index(name)]
            won = lot.random() < chance
            if arm.endswith("poisoned") and lot.random() < POISONED:
                won = not won
            _remember(memory, name, context, won=won)
            lost += max(chances[situation]) - chance
            chosen_best.append(chance == max(chances[situation]))
    end = chosen_best[-max(rounds // 5, 1) :]
    return Played(arm, seed, lost, sum(end) / len(end))


def _followed(advice: Advice, arm: str) -> str:
    """``best`` is cautious; who wants to find out takes what could be best."""
    if arm.startswith(FIRST):
        return advice.best.action
    return max(advice.recommendations, key=lambda one: (one.upper, one.action)).action


def _remember(memory: Memory, name: str, context: dict[str, str], *, won: bool) -> None:
    episode = memory.episode("do what is advised", **context)
    episode.step(name)
    if won:
        episode.succeed()
    else:
        episode.fail("it did not work")


def replay_lines(guesses: Sequence[Guess]) -> list[list[str]]:
    """A line a trial: the curve."""
    cells = []
    for trial in sorted({guess.trial for guess in guesses}):
        ours = [guess for guess in guesses if guess.trial == trial]
        names = ("brier_without", "brier", "tools_without", "tools")
        means = [np.mean([msgspec.structs.asdict(guess)[name] for guess in ours]) for name in names]
        cells.append([f"trial {trial}", *(f"{value:.3f}" for value in means)])
    return cells


def replay_table(runs: Sequence[Run], num_orders: int) -> Table:
    """The learning curve over trials, and the differences with intervals."""
    guesses = [guess for order in range(num_orders) for guess in replay(shuffled(runs, order))]
    later = [guess for guess in guesses if guess.trial > 0]
    return Table(
        name="memory_learning",
        title="tau-bench airline replayed: what a memory of earlier runs foresees",
        columns=["", "Brier without", "Brier with", "next tool without", "next tool with"],
        cells=replay_lines(guesses),
        notes=[
            f"{words}, with − without, {where}: {difference(part, name, f'{name}_without')}"
            for where, part in (("all trials", guesses), ("trials 1 to 3", later))
            for words, name in (("Brier score of the outcome", "brier"), ("next tool foreseen", "tools"))
        ],
        rows=[{"orders": num_orders, "runs": len(runs)}],
    )


def life_table(num_seeds: int, rounds: int) -> Table:
    """Regret and convergence, by arm."""
    played = [life(arm, seed, rounds) for arm in ARMS for seed in range(num_seeds)]
    cells = []
    for arm in ARMS:
        ours = [one for one in played if one.arm == arm]
        mean, sd = mean_sd([one.regret for one in ours])
        best = mean_sd([one.best_at_end for one in ours])[0]
        cells.append([arm, str(len(ours)), f"{mean:.1f} ± {sd:.1f}", f"{mean / rounds:.3f}", f"{best:.2f}"])
    return Table(
        name="memory_simulator",
        title=f"An agent that follows advice for {rounds} rounds ({SITUATIONS} situations, {ACTIONS} actions)",
        columns=["arm", "seeds", "regret", "regret a round", "best action, last fifth"],
        cells=cells,
        rows=[msgspec.to_builtins(one) for one in played],
    )


def main() -> None:
    """Print both tables, and keep them unless the run is quick."""
    parser = argparse.ArgumentParser("python -m benchmarks.memory.learning", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with the runs")
    parser.add_argument("--quick", action="store_true", help="seconds, and nothing is stored")
    given = parser.parse_args()
    runs = [run for run in read_runs(given.data) if not given.quick or run.task < 12]
    line = "python -m benchmarks.memory.learning --data FOLDER"
    publish(replay_table(runs, 2 if given.quick else 10), command=line, stored=not given.quick)
    lives = life_table(2, 60) if given.quick else life_table(10, 1_000)
    publish(lives, command=line, stored=not given.quick)


if __name__ == "__main__":
    main()
