"""Steps reach the store once, in order, whatever the store does meanwhile."""

from __future__ import annotations

import threading

import pytest

from esper.errors import EpisodeError, MemoryStoreError
from esper.memory.writing import Writer


class Disk:
    """Keeps batches; refuses while ``full``, and always refuses entries in ``bad``."""

    def __init__(self):
        self.batches = []
        self.full = False
        self.bad = set()

    def __call__(self, batch):
        if self.full:
            raise MemoryStoreError("full")
        if self.bad & set(batch):
            raise EpisodeError("gone")
        self.batches.append(list(batch))

    @property
    def entries(self):
        return [entry for batch in self.batches for entry in batch]


def test_queued_entries_are_stored_in_order_in_one_batch():
    disk = Disk()
    writer = Writer(disk, max_batch=100)
    assert {writer.put(number) for number in range(5)} == {"queued"}
    writer.close()
    assert disk.batches == [[0, 1, 2, 3, 4]]


def test_a_full_disk_is_told_and_nothing_is_lost():
    disk = Disk()
    writer = Writer(disk, max_batch=100, flush_interval=3600)
    for number in range(3):
        writer.put(number)
    disk.full = True
    with pytest.raises(MemoryStoreError):
        writer.flush()
    disk.full = False
    writer.close()
    assert disk.entries == [0, 1, 2]


def test_an_entry_whose_episode_is_gone_does_not_hold_the_others_up():
    disk = Disk()
    disk.bad = {1}
    writer = Writer(disk, max_batch=100, flush_interval=3600)
    for number in range(4):
        writer.put(number)
    with pytest.raises(EpisodeError):
        writer.flush()
    assert disk.entries == [0, 2, 3]
    writer.close()


def test_an_entry_that_was_refused_at_once_is_not_stored_later():
    disk = Disk()
    disk.full = True
    writer = Writer(disk)
    with pytest.raises(MemoryStoreError):
        writer.put(1)
    disk.full = False
    assert writer.put(2) == "process"
    assert disk.entries == [2]


def test_entries_that_wait_for_a_slow_disk_share_one_commit():
    disk, going, go = Disk(), threading.Event(), threading.Event()

    def slow(batch):
        going.set()
        assert go.wait(10)
        disk(batch)

    writer = Writer(slow, durability="power")
    threads = [threading.Thread(target=writer.put, args=(number,)) for number in range(9)]
    threads[0].start()
    assert going.wait(10)
    for thread in threads[1:]:
        thread.start()
    while len(writer._tickets) < 8:
        pass
    go.set()
    for thread in threads:
        thread.join()
    assert sorted(disk.entries) == list(range(9))
    assert len(disk.batches) == 2


def test_a_refused_companion_does_not_take_the_others_down():
    disk, going, go = Disk(), threading.Event(), threading.Event()
    disk.bad = {"bad"}

    def slow(batch):
        going.set()
        assert go.wait(10)
        disk(batch)

    writer, told = Writer(slow), {}

    def put(entry):
        try:
            told[entry] = writer.put(entry)
        except EpisodeError:
            told[entry] = "refused"

    threads = [threading.Thread(target=put, args=(entry,)) for entry in ("first", "bad", "good")]
    threads[0].start()
    assert going.wait(10)
    for thread in threads[1:]:
        thread.start()
    while len(writer._tickets) < 2:
        pass
    go.set()
    for thread in threads:
        thread.join()
    assert told == {"first": "process", "bad": "refused", "good": "process"}


def test_the_queue_is_flushed_after_its_interval_without_being_asked():
    stored = threading.Event()
    writer = Writer(lambda _: stored.set(), max_batch=100, flush_interval=0.01)
    writer.put(1)
    assert stored.wait(10)
    writer.close()
