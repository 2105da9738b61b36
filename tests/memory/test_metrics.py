"""A monitor reads how much there is and how long things take."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from esper.memory import Memory, Options
from esper.memory.metrics import Distribution


@given(st.lists(st.floats(0, 1_000)))
def test_a_distribution_counts_every_value_once(values):
    told = Distribution.of(values, (1.0, 10.0, 100.0))
    assert told.count == len(values)
    assert told.counts[0] == sum(value <= 1.0 for value in values)
    assert told.counts[-1] == sum(value > 100.0 for value in values)


def test_what_was_done_is_counted_and_timed(memory):
    with memory.episode("fix it") as episode:
        episode.step("search", result="x" * 2_000)
    memory.episode("left open")
    memory.recall("fix")
    memory.recall("fix")
    found = memory.upkeep.metrics()
    assert (found.episodes_stored_total, found.active_episodes) == (1, 1)
    assert found.episode_size_bytes.counts == (0, 1, 0, 0, 0, 0)
    counts = {deed: told.count for deed, told in found.seconds.items()}
    assert counts == {"recall": 2, "complete": 1, "write": 3}
    assert all(told.sum > 0 for told in found.seconds.values())


def test_a_batch_is_one_write(tmp_path):
    with Memory(tmp_path / "memory.db", options=Options(max_batch=100, flush_interval=60)) as memory:
        episode = memory.episode("many steps")
        for _ in range(50):
            episode.step("search")
        memory.flush()
        assert memory.upkeep.metrics().seconds["write"].count == 1


def test_the_text_is_what_prometheus_reads(tmp_path):
    with Memory(tmp_path / "memory.db", namespace='a "b"\\\n') as memory:
        memory.recall("x")
        lines = memory.upkeep.metrics().text.splitlines()
    sample = re.compile(r'[a-z_]+\{namespace="a \\"b\\"\\\\\\n"(,le="[^"]+")?\} [0-9.e+-]+')
    assert [line for line in lines if not line.startswith("# TYPE ") and not sample.fullmatch(line)] == []
    buckets = [int(line.split()[-1]) for line in lines if line.startswith("recall_seconds_bucket")]
    assert buckets == sorted(buckets)
    assert buckets[-1] == 1
    assert any('le="+Inf"' in line for line in lines)


def test_a_trace_is_told_of_each_thing_that_was_done_with_the_ids_of_what_it_was_about(clock):
    told = []
    with Memory(":memory:", clock=clock, options=Options(trace=told.append)) as memory:
        with memory.episode("fix it") as episode:
            episode.step("search")
            inside = episode.recall("fix")
        outside = memory.recall("fix it")
    assert [(one.deed, one.ids) for one in told] == [
        ("write", (episode.id,)),
        ("write", (episode.id,)),
        ("recall", (inside.exposure, episode.id)),
        ("complete", (episode.id,)),
        ("recall", (outside.exposure,)),
    ]
    assert all(one.seconds > 0 and one.at > 0 for one in told)
