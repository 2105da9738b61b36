"""A disk that is full or may only be read is told in clear words, and nothing that was acknowledged is lost."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import pytest

from esper.errors import MemoryStoreError
from esper.memory import Memory
from esper.memory.journal import Options
from esper.memory.stores.sqlite.store import SqliteStore

ANYBODY = 65_534
PAYLOAD = "x" * 20_000


@pytest.fixture
def disk_limit():
    """Call it with a number of bytes: no file of this process may grow larger; ``None`` lifts the limit."""
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (soft if size is None else size, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    signal.signal(signal.SIGXFSZ, before)


@pytest.fixture
def small_disk(tmp_path):
    """A folder on a disk of two megabytes."""
    mounted = os.geteuid() == 0 and shutil.which("mount") is not None
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(tmp_path)]
    if not mounted or subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("only root may mount a small disk")
    yield tmp_path
    subprocess.run(["umount", "-l", str(tmp_path)], check=True)


@pytest.fixture
def readable_disk():
    """A folder outside pytest's private ones, which anybody may enter."""
    folder = Path(tempfile.mkdtemp(prefix="esper-readable-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def _fill(episode):
    number = 0
    for _ in range(1_000):
        try:
            number = episode.step("tool", result=PAYLOAD).number
        except MemoryStoreError as error:
            return number, str(error)
    raise AssertionError("the disk never filled")


def test_a_file_that_may_not_grow_keeps_what_was_acknowledged_and_goes_on_when_it_may(tmp_path, disk_limit):
    with Memory(tmp_path / "memory.db") as memory:
        episode = memory.episode("fill the disk")
        disk_limit(1_000_000)
        number, told = _fill(episode)
        assert number > 5
        assert "the disk refuses" in told
        with pytest.raises(MemoryStoreError):
            episode.succeed()
        disk_limit(None)
        assert memory.store.episodes.last_number(episode.id) == number
        episode.step("tool")
        assert episode.succeed().score is not None
        assert memory.store.check() == []


def test_a_full_disk_keeps_what_was_acknowledged(small_disk):
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(300_000))
    with Memory(small_disk / "memory.db") as memory:
        episode = memory.episode("fill the disk")
        number, told = _fill(episode)
        assert "the disk is full" in told
        assert memory.store.episodes.last_number(episode.id) == number
        assert memory.recall("fill the disk").ids == ()
        ballast.unlink()
        episode.step("tool", result=PAYLOAD)
        assert episode.succeed().score is not None
        assert memory.store.check() == []


def test_queued_steps_wait_for_room(tmp_path, disk_limit):
    with Memory(tmp_path / "memory.db", options=Options(max_batch=50, flush_interval=3_600)) as memory:
        episode = memory.episode("fill the disk")
        disk_limit(200_000)
        for _ in range(40):
            episode.step("tool", result=PAYLOAD)
        with pytest.raises(MemoryStoreError, match="the disk refuses"):
            memory.flush()
        disk_limit(None)
        assert episode.succeed().num_steps == 40


def test_a_backup_that_finds_no_room_leaves_the_old_one_alone(tmp_path, disk_limit):
    with Memory(tmp_path / "memory.db") as memory:
        memory.store.backup(tmp_path / "backup.db")
        episode = memory.episode("a large one")
        for _ in range(50):
            episode.step("tool", result=os.urandom(20_000).hex())
        disk_limit(500_000)
        with pytest.raises(MemoryStoreError, match=r"backup\.db"):
            memory.store.backup(tmp_path / "backup.db")
        disk_limit(None)
    old = SqliteStore(tmp_path / "backup.db")
    assert old.check() == []
    assert old.counts()["episodes"] == 0
    old.close()


def test_a_file_that_may_only_be_read_says_so(readable_disk):
    path = readable_disk / "memory.db"
    with Memory(path) as memory, memory.episode("before") as episode:
        episode.step("tool")
    path.chmod(0o444)
    readable_disk.chmod(0o555)
    user = os.geteuid()
    os.seteuid(ANYBODY if user == 0 else user)
    try:
        with (
            pytest.raises(MemoryStoreError, match=r"may only be read|cannot be opened"),
            Memory(path) as memory,
        ):
            memory.note("refused")
    finally:
        os.seteuid(user)
        readable_disk.chmod(0o755)
        path.chmod(0o644)
    with Memory(path) as memory:
        assert memory.get(episode.id).state == "completed"
