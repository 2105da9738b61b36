"""The benchmark of growth that remembers leaves the task out, and shuffles outcomes only."""

from __future__ import annotations

import pytest

from benchmarks.arms import Plan
from benchmarks.memory.growth import (
    OTHERS,
    PLAIN,
    SAME,
    SHUFFLED,
    Grown,
    Setting,
    _filled,
    cells,
    known_to,
    one_run,
)
from esper.memory import Memory


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> list[Grown]:
    setting = Setting(tmp_path_factory.mktemp("data"), Plan(steps=60))
    rows = [row for name in ("spirals", "digits") for row in one_run(name, PLAIN, setting, 0, ())]
    return [row for row in rows if isinstance(row, Grown)]


def outcomes(runs: list[Grown], *, shuffled: bool, seed: int = 0) -> list[tuple[str, float]]:
    with Memory(":memory:") as memory:
        _filled(memory, runs, shuffled=shuffled, seed=seed)
        episodes = memory.episodes()
    return sorted((str(e.context["key"]), e.outcome.reward) for e in episodes if e.outcome is not None)


def test_a_memory_of_other_tasks_knows_nothing_of_the_own_one(plain: list[Grown]) -> None:
    assert {run.task for run in known_to(OTHERS, "spirals", 0, plain)} == {"digits"}
    assert {run.task for run in known_to(SHUFFLED, "digits", 0, plain)} == {"spirals"}
    assert known_to(SAME, "digits", 0, plain) == []


def test_shuffling_moves_outcomes_and_changes_none(plain: list[Grown]) -> None:
    told = outcomes(plain, shuffled=False)
    orders = [outcomes(plain, shuffled=True, seed=seed) for seed in range(6)]
    assert len(told) == sum(len(run.episodes) for run in plain) > 2
    for order in orders:
        assert [key for key, _ in order] == [key for key, _ in told]
        assert sorted(reward for _, reward in order) == sorted(reward for _, reward in told)
    assert any(order != told for order in orders)


def test_the_table_counts_trials_and_kept_grafts_by_arm(plain: list[Grown]) -> None:
    (first, *_) = cells(plain)
    assert first[:4] == [
        f"all: {PLAIN}", "2", str(sum(run.trials for run in plain)), str(sum(run.kept for run in plain)),
    ]  # fmt: skip
