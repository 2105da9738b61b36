"""How things go over time, from a shell."""

from __future__ import annotations

import sys
import time

import pytest

from esper.memory import Memory

SECOND = 10**9


class Watch:
    def __init__(self):
        self.now = 1_800_000_000 * SECOND

    def __call__(self):
        return self.now


@pytest.fixture
def history(tmp_path):
    """Thirty bug fixes, of which only the first twenty went well; one of them took a hundred times as long."""
    watch = Watch()
    ids = []
    with Memory(tmp_path / ".esper" / "memory.db", clock=watch) as memory:
        for number in range(30):
            with memory.episode("fix it", task_type="bugfix") as episode:
                watch.now += (1_000 if number == 7 else 10 + number % 3) * SECOND
                episode.partial(1.0 if number < 20 else 0.0)
            ids.append(episode.id)
    return ids


def test_json_has_the_series_and_everything_that_is_concluded(shell, history):
    found = shell.json("analyse", "--type", "bugfix", "--horizon", 2)
    assert [point["episodes"] for point in found["series"]["points"]] == [[id] for id in history]
    assert [(one["index"], one["before"], one["after"]) for one in found["changes"]] == [(20, 1.0, 0.0)]
    assert found["anomalies"] == []
    assert len(found["forecast"]) == 2
    assert all(one["lower"] <= one["mean"] < 0.2 for one in found["forecast"])


def test_people_read_which_episode_stands_apart(shell, history):
    found = shell("analyse", "--metric", "latency")
    assert "30 points of latency, one for each episode, since 2027-01-15" in found
    assert "changes: none" in found
    (line,) = [line for line in found.splitlines() if history[7] in line]
    assert "1000" in line
    assert len(found.split("to be expected:")[1].strip().splitlines()) == 1 + 5


@pytest.mark.usefixtures("history")
def test_a_wider_level_gives_wider_intervals(shell):
    narrow, wide = (
        shell.json("analyse", "--metric", "latency", "--level", level)["forecast"][0] for level in (0.5, 0.99)
    )
    assert narrow["upper"] - narrow["lower"] < wide["upper"] - wide["lower"]


@pytest.mark.usefixtures("history")
def test_too_few_points_and_unknown_metrics_are_one_line_of_error(shell):
    assert "1 points of success are too few, 10 are needed" in shell.refused("analyse", "--by", "day")
    assert "0 points" in shell.refused("analyse", "--type", "unheard")
    assert "'mood' is not one of" in shell.refused("analyse", "--metric", "mood")


@pytest.mark.usefixtures("history")
def test_without_the_extra_it_says_what_to_install(shell, monkeypatch):
    monkeypatch.setitem(sys.modules, "statsmodels.tsa.statespace.exponential_smoothing", None)
    assert "pip install 'esper-grow[analysis]'" in shell.refused("analyse")


def test_a_day_is_shown_as_its_date_in_utc(shell, tmp_path, monkeypatch):
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    watch = Watch()
    with Memory(tmp_path / ".esper" / "memory.db", clock=watch) as memory:
        for _ in range(12):
            watch.now += 86_400 * SECOND
            with memory.episode("fix it") as episode:
                episode.succeed()
    try:
        assert "12 points of success, one for each day, since 2027-01-16" in shell("analyse", "--by", "day")
    finally:
        monkeypatch.undo()
        time.tzset()
