"""A series holds what the episodes say, in the order of time, and nothing else."""

from __future__ import annotations

import pytest

from esper.errors import AnalysisError
from esper.memory import Memory
from esper.memory.analysis import series
from esper.memory.analysis.series import _PAGE

SECOND = 10**9
DAY = 86_400 * SECOND
MONDAY = 20_000 * DAY


class Watch:
    def __init__(self):
        self.now = MONDAY

    def __call__(self):
        return self.now


@pytest.fixture
def watch():
    return Watch()


@pytest.fixture
def memory(watch):
    with Memory(":memory:", clock=watch) as opened:
        yield opened


@pytest.fixture
def solve(memory, watch):
    def record(*, at=0, seconds=1, tokens=(), won=1.0, task_type="bugfix"):
        watch.now = MONDAY + at
        with memory.episode("fix it", task_type=task_type) as episode:
            for count in tokens:
                episode.step(tool="editor", tokens=count)
            watch.now += seconds * SECOND
            episode.partial(won, "so far")
        return episode.id

    return record


@pytest.mark.parametrize(
    ("metric", "values"), [("success", [0.25, 1.0]), ("latency", [3.0, 5.0]), ("tokens", [30.0, 7.0])]
)
def test_each_metric_is_what_the_episodes_say_oldest_first(memory, solve, metric, values):
    ids = [
        solve(seconds=3, tokens=(10, 20), won=0.25),
        solve(at=60 * SECOND, seconds=5, tokens=(7,), won=1.0),
    ]
    found = series(memory, metric)
    assert found.values == values
    assert [point.episodes for point in found.points] == [(id,) for id in ids]
    assert [point.at for point in found.points] == [MONDAY, MONDAY + 60 * SECOND]


def test_the_score_is_the_total_of_its_parts(memory, solve):
    id = solve()
    assert series(memory, "score").values == [memory.get(id).score.total]


def test_a_day_is_the_mean_of_its_episodes_and_an_empty_day_has_no_point(memory, solve):
    ids = [solve(won=0.0), solve(at=DAY - 2 * SECOND, won=1.0), solve(at=3 * DAY, won=1.0)]
    found = series(memory, by="day")
    assert [(point.at, point.value, point.episodes) for point in found.points] == [
        (MONDAY, 0.5, (ids[0], ids[1])),
        (MONDAY + 3 * DAY, 1.0, (ids[2],)),
    ]


def test_other_task_types_and_namespaces_and_open_episodes_are_left_out(memory, solve):
    solve(), solve(task_type="docs", seconds=9)
    memory.episode("left open", task_type="bugfix")
    memory.episode("given up", task_type="bugfix").abandon()
    with memory.episode("elsewhere", namespace="other", task_type="bugfix") as episode:
        episode.succeed()
    assert series(memory, "latency", task_type="bugfix").values == [1.0]
    assert sorted(series(memory, "latency").values) == [1.0, 9.0]


def test_an_episode_that_counted_no_tokens_has_no_point(memory, solve):
    solve(tokens=(None, None)), solve(tokens=(None, 4))
    assert series(memory, "tokens").values == [4.0]


def test_nothing_is_cut_off_where_there_are_several_pages(memory, solve):
    count = _PAGE + 3
    for number in range(count):
        solve(at=number * SECOND // 2, won=(number % 10) / 10)
    assert series(memory).values == [(number % 10) / 10 for number in range(count)]


def test_too_few_points_say_how_many_are_needed(memory, solve):
    solve()
    with pytest.raises(AnalysisError, match="1 points of success are too few, 2 are needed"):
        series(memory).at_least(2)
