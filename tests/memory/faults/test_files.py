"""Files that were cut, and backups that were interrupted."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys

import pytest

from esper.errors import MemoryStoreError
from esper.memory import Memory
from esper.memory.stores.sqlite.store import SqliteStore

BACKUP = """
import os, signal, sys
from pathlib import Path
from esper.memory.stores.sqlite import connection
from esper.memory.stores.sqlite.store import SqliteStore

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

class FewPages:
    left = 5
    def __index__(self):
        self.left -= 1
        return 1 if self.left else die()

if sys.argv[3] == "while copying":
    connection.PAGES = FewPages()
else:
    Path.replace = die
SqliteStore(sys.argv[1]).backup(Path(sys.argv[2]))
"""


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "memory.db"
    with Memory(path) as memory:
        for number in range(20):
            with memory.episode(f"task {number}", domain="ci") as episode:
                for _ in range(5):
                    episode.step("tool", "do", result="x" * 500)
    return path


@pytest.mark.parametrize("share", [0.0001, 0.001, 0.01, 0.1, 0.3, 0.5, 0.7, 0.9])
def test_a_file_that_was_cut_is_refused_and_left_alone(whole, tmp_path, share):
    path = tmp_path / "memory.db"
    content = whole.read_bytes()
    path.write_bytes(content[: max(1, int(len(content) * share))])
    before = path.read_bytes()
    with pytest.raises(MemoryStoreError, match="damaged"):
        SqliteStore(path)
    assert path.read_bytes() == before


def test_a_file_whose_inside_was_overwritten_is_found_by_the_check(whole, tmp_path):
    path = tmp_path / "memory.db"
    content = bytearray(whole.read_bytes())
    content[8_192:40_960] = bytes(32_768)
    path.write_bytes(content)
    store = SqliteStore(path)
    try:
        found = store.check()
    except MemoryStoreError as error:
        found = [str(error)]
    store.close()
    assert found


@pytest.mark.parametrize("moment", ["while copying", "before it gets its name"])
@pytest.mark.parametrize("old", [False, True])
def test_a_backup_that_was_interrupted_leaves_the_old_one_and_can_be_made_again(whole, tmp_path, moment, old):
    target = tmp_path / "backup.db"
    if old:
        SqliteStore(target).close()
    killed = subprocess.run([sys.executable, "-c", BACKUP, str(whole), str(target), moment], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert (tmp_path / "backup.db.partial").exists()
    assert target.exists() == old
    assert not old or _num_episodes(target) == 0
    store = SqliteStore(whole)
    store.backup(target)
    store.close()
    assert _num_episodes(target) == 20
    assert not (tmp_path / "backup.db.partial").exists()


def test_a_backup_to_a_place_that_cannot_be_is_told(whole, tmp_path):
    store = SqliteStore(whole)
    (tmp_path / "folder").mkdir()
    for target in (tmp_path / "nowhere" / "backup.db", tmp_path / "folder"):
        with pytest.raises(MemoryStoreError, match=target.name):
            store.backup(target)
    store.close()


def test_a_backup_holds_what_others_write_meanwhile_or_does_not_but_is_whole(whole, tmp_path):
    """It is one state of the memory: a writer between two of its parts makes it start again."""
    path = tmp_path / "memory.db"
    shutil.copy(whole, path)
    with Memory(path) as memory, Memory(path) as other, other.episode("meanwhile"):
        memory.store.backup(tmp_path / "backup.db")
    assert _num_episodes(tmp_path / "backup.db") == 21


def _num_episodes(path):
    store = SqliteStore(path)
    assert store.check() == []
    count = store.counts()["episodes"]
    store.close()
    return count
