"""Does trust, context or score make recall better than its text alone?

tau-bench's airline runs are replayed by trial, within one in ten orders of chance, a day between trials. Before a run
is recorded, its opening message is asked for, by words alone: are earlier runs of the same task found, and does one
that *succeeded* come early? Only runs whose task was solved before count for the latter. The run's reward then goes to
the best answer as feedback. ``python -m benchmarks.memory.ranking_terms --data FOLDER``.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np

from benchmarks.memory.measures import RESAMPLES
from benchmarks.memory.replay import Run, found, read_runs, record, shuffled
from benchmarks.table import Table, publish
from esper.memory import Memory
from esper.memory.recall.search import Asked, Scoring, Search
from esper.memory.recall.terms import Weights
from esper.memory.stores.store import Filter

ORDERS = 10
DEPTH = 10
DAY = 86_400 * 10**9
EPISODES = Filter(namespace="default", kinds=("episode",))
TEXT = Weights(trust=0.0, context=0.0, score=0.0)
VARIANTS: Mapping[str, Weights] = {
    "text alone": TEXT,
    "text and context": msgspec.structs.replace(TEXT, context=0.1),
    **{
        f"text and trust {weight}": msgspec.structs.replace(TEXT, trust=weight)
        for weight in (0.1, 0.25, 0.5, 1.0)
    },
    **{
        f"text and score {weight}": msgspec.structs.replace(TEXT, score=weight) for weight in (0.05, 0.1, 0.2)
    },
    "text, trust 0.25 and score 0.05": Weights(trust=0.25, context=0.0, score=0.05),
    "text, trust 0.25 and score 0.1": Weights(trust=0.25, context=0.0, score=0.1),
    "text, trust 0.5 and score 0.05": Weights(trust=0.5, context=0.0, score=0.05),
}


class Judged(msgspec.Struct, frozen=True):
    """One question under one ranking: recall of the same task's runs, and 1 / place of the first that succeeded."""

    task: int
    recall: float
    success: float | None


def replay(runs: Sequence[Run]) -> dict[str, list[Judged]]:
    """Ask, judge, record; every ranking looks at the same memory."""
    now = [0]
    judged: dict[str, list[Judged]] = {name: [] for name in VARIANTS}
    by_id: dict[str, Run] = {}
    with Memory(":memory:", clock=lambda: now[0]) as memory:
        searches = {
            name: Search(
                memory.store, lambda: now[0], lambda exposure: exposure, scoring=Scoring(weights=weights)
            )
            for name, weights in VARIANTS.items()
        }
        for run in runs:
            now[0] = (1 + run.trial) * DAY + len(by_id) * 10**9
            asked = Asked(query=run.opening, filter=EPISODES, k=DEPTH, task_type="airline")
            earlier = [id for id, other in by_id.items() if other.task == run.task]
            for name, search in searches.items() if earlier else ():
                judged[name].append(_judged(run, found(search.recall(asked))[:DEPTH], earlier, by_id))
            recalled = memory.recall(run.opening, filter=EPISODES)
            if recalled.relevant:
                memory.feedback(recalled, recalled.ids[:1], reward=run.reward)
            by_id[record(memory, run).id] = run
    return judged


def _judged(run: Run, ranked: Sequence[str], earlier: Sequence[str], by_id: Mapping[str, Run]) -> Judged:
    solved = {id for id in earlier if by_id[id].reward > 0}
    first = next((1.0 / place for place, id in enumerate(ranked, start=1) if id in solved), 0.0)
    recall = len(set(ranked) & set(earlier)) / len(earlier)
    return Judged(run.task, recall, first if solved else None)


def lines(judged: Mapping[str, Sequence[Judged]]) -> list[list[str]]:
    """A line a ranking, differences to the first; questions of one task are drawn together."""
    reference = next(iter(judged.values()))
    return [[name, *_compared(found, reference)] for name, found in judged.items()]


def _compared(found: Sequence[Judged], reference: Sequence[Judged]) -> list[str]:
    cells = []
    for name in ("recall", "success"):
        pairs = [
            (one.task, msgspec.structs.asdict(one)[name], msgspec.structs.asdict(other)[name])
            for one, other in zip(found, reference, strict=True)
            if msgspec.structs.asdict(one)[name] is not None
        ]
        ours = np.mean([value for _, value, _ in pairs])
        low, high = _interval(pairs)
        cells += [f"{ours:.3f}", f"{np.mean([a - b for _, a, b in pairs]):+.3f} [{low:+.3f}, {high:+.3f}]"]
    return cells


def _interval(pairs: Sequence[tuple[int, float, float]]) -> tuple[float, float]:
    tasks = sorted({task for task, _, _ in pairs})
    sums = np.array([sum(a - b for task, a, b in pairs if task == one) for one in tasks])
    sizes = np.array([sum(1 for task, _, _ in pairs if task == one) for one in tasks])
    drawn = np.random.default_rng(0).integers(len(tasks), size=(RESAMPLES, len(tasks)))
    low, high = np.quantile(sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1), [0.025, 0.975])
    return float(low), float(high)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser("python -m benchmarks.memory.ranking_terms", description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--orders", type=int, default=ORDERS, help="orders of chance (%(default)s)")
    parser.add_argument("--publish", action="store_true", help="store the table in results/ and the README")
    given = parser.parse_args()
    runs = read_runs(given.data)
    judged: dict[str, list[Judged]] = {name: [] for name in VARIANTS}
    for seed in range(given.orders):
        for name, more in replay(shuffled(runs, seed)).items():
            judged[name] += more
    made = Table(
        name="ranking_terms",
        title="What trust, context and score add to the text",
        columns=["ranking", "R@10, same task", "difference", "MRR@10, solved", "difference"],
        cells=lines(judged),
        notes=[
            f"{len(runs)} runs of tau-bench's airline agent, {given.orders} orders",
            "differences to text alone, with 95 % bootstrap intervals over tasks",
            "solved: only where an earlier run of the same task had succeeded",
        ],
    )
    publish(made, command="python -m benchmarks.memory.ranking_terms", stored=given.publish)


if __name__ == "__main__":
    main()
