"""Threads of one process: readers wait for no writer, writers for each other."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from esper.errors import EpisodeError, MemoryStoreError
from esper.memory.records import Step
from esper.memory.stores.store import Filter
from esper.testing.memory_store import episode, note

LONG = 30


@pytest.mark.parametrize("location", ["file", "postgresql"], indirect=True)
def test_a_reader_sees_what_was_committed_while_another_thread_is_in_a_transaction(store):
    store.episodes.add([episode(1)])
    begun, read = threading.Event(), threading.Event()

    def write():
        with store.transaction():
            store.episodes.add([episode(2)])
            begun.set()
            return read.wait(LONG)

    with ThreadPoolExecutor(1) as threads:
        writing = threads.submit(write)
        assert begun.wait(LONG)
        assert len(store.episodes.find(Filter())) == 1
        assert store.items.search(["cake"], Filter(), 5) == []
        read.set()
        assert writing.result()
    assert len(store.episodes.find(Filter())) == 2


@pytest.mark.parametrize("location", ["file", ":memory:", "postgresql"], indirect=True)
def test_threads_that_read_and_write_at_once_lose_nothing(store):
    store.episodes.add([episode(number) for number in range(8)])

    def work(number):
        for place in range(1, 16):
            store.episodes.add_steps([(f"episode-{number:04d}", Step(number=place))])
            store.items.add([note(100 * number + place, "cake")])
            assert store.items.search(["cake"], Filter(), 5)
            assert store.episodes.last_number(f"episode-{number:04d}") == place

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(work, range(8)))
    assert len(store.items.find(Filter(), limit=1_000)) == 120
    assert store.check() == []


@pytest.mark.parametrize("location", ["file", "postgresql"], indirect=True)
def test_a_store_may_be_closed_while_other_threads_use_it(store):
    store.episodes.add([episode(1)])
    begun = threading.Barrier(4, timeout=LONG)

    def read():
        begun.wait()
        for _ in range(2_000):
            try:
                store.episodes.find(Filter())
            except MemoryStoreError as error:
                return str(error)
            except EpisodeError:
                return "wrong kind"
        return "closed too late to notice"

    with ThreadPoolExecutor(3) as threads:
        reading = [threads.submit(read) for _ in range(3)]
        begun.wait()
        store.close()
        said = [one.result() for one in reading]
    assert all("closed" in one for one in said)
