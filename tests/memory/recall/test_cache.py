"""The query cache keeps what was used lately, for a while, and only while nothing has changed."""

from __future__ import annotations

import pytest

from esper.memory.recall.cache import QueryCache


@pytest.fixture
def cache(clock):
    return QueryCache(clock, size=2)


def test_the_value_used_longest_ago_makes_room(cache):
    for key in "ab":
        cache.put(key, 1, key.upper())
    assert cache.get("a", 1) == "A"
    cache.put("c", 1, "C")
    assert [cache.get(key, 1) for key in "abc"] == ["A", None, "C"]


def test_a_value_holds_for_its_stamp_alone(cache):
    cache.put("a", 1, "A")
    assert cache.get("a", 2) is None
    assert cache.get("a", 1) == "A"


def test_a_value_does_not_outlive_its_time(clock):
    cache = QueryCache(clock, time_to_live=10 * 10**9)
    cache.put("a", 1, "A")
    clock.now += 9 * 10**9
    assert cache.get("a", 1) == "A"
    clock.now += 2 * 10**9
    assert cache.get("a", 1) is None
    assert (cache.report().hits, cache.report().misses) == (1, 1)
