"""The benchmarks of cost and hygiene compare, count and flag as they say."""

from __future__ import annotations

import json

import pytest

from benchmarks.memory import latency
from benchmarks.memory.generated import fill, question, told
from benchmarks.memory.hygiene import repeats, stages
from benchmarks.memory.latency import line, notes, shown
from benchmarks.memory.latency_processes import run_fresh, run_reader, run_writer
from esper.memory import Memory


def test_an_episode_of_a_number_is_always_the_same_and_others_differ():
    assert told(3) == told(3)
    assert len({told(number).task for number in range(50)}) == 50
    assert question(1) != question(2)


def test_ways_of_working_recur_so_that_there_is_something_to_learn():
    with Memory(":memory:") as memory:
        fill(memory, range(60))
        assert max(pattern.tally.occurrences for pattern in memory.patterns()) >= 3


@pytest.mark.parametrize(("microseconds", "text"), [(0.532, "0.532 µs"), (1_234.0, "1.23 ms"), (2e6, "2 s")])
def test_times_are_shown_in_the_unit_that_suits(microseconds, text):
    assert shown(microseconds) == text


def test_a_missed_target_and_a_figure_that_grew_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(latency, "RESULTS", tmp_path)
    rows = [{"what": "quick", "ratio": 1.0}, {"what": "slow", "ratio": 1.0}]
    (tmp_path / "it.json").write_text(json.dumps({"table": {"rows": rows}}))
    lines = [
        line("quick", [10.0, 14.0, 18.0], 10.0, target=20.0),
        line("slow", [30.0], 10.0, target=20.0),
        line("new", [9e9], 10.0),
        line("10,000: recall", [10.0], 10.0),
        line("100,000: recall", [25.0], 10.0),
    ]
    told_of = notes(lines, "it")
    assert told_of == [
        "misses its target: slow, 30 µs",
        "recall at 100,000 episodes costs 2.50 times that at 10,000 (target: at most 4)",
        "slower than stored: slow, 3.0 times",
    ]


def test_other_processes_measure_what_they_name(tmp_path):
    path = str(tmp_path / "memory.db")
    with Memory(path) as memory:
        fill(memory, range(5))
    assert set(run_fresh(path)) == {"import esper.memory", "open", "first recall", "first get"}
    assert len(run_reader(path, 0)["get"]) == 5
    assert len(run_writer(path, 0)["durable step"]) == 1_000


def test_the_stages_of_a_memory_count_what_it_holds(tmp_path):
    first, second = stages(tmp_path / "memory.db", (20, 40))
    assert (first.episodes, second.episodes) == (20, 40)
    assert second.patterns == first.patterns + round(20 * second.begun)
    assert second.kilobytes > first.kilobytes > 0
    assert second.exposures > first.exposures


def test_repeats_are_those_that_were_there_before():
    assert repeats(["a", "b", "a", "a"]) == 2
