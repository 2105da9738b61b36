"""Trees on disk: what goes in comes out, and no failure loses the last good checkpoint."""

from __future__ import annotations

import errno
import os
import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from esper.errors import CheckpointError
from esper.growth.checkpoint import TREE, read, write

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text("ab$é")
KEYS = st.text("ab$") | st.integers() | st.none() | st.tuples(st.integers(), st.text("a"))
TREES = st.recursive(
    SCALARS,
    lambda children: (
        st.lists(children, max_size=3)
        | st.lists(children, max_size=3).map(tuple)
        | st.dictionaries(KEYS, children, max_size=3)
    ),
    max_leaves=10,
)
DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.int64, torch.uint8, torch.bool]


def same(left: Any, right: Any) -> bool:
    if isinstance(left, torch.Tensor):
        return left.dtype == right.dtype and torch.equal(left, right)
    if isinstance(left, (list, tuple)):
        return type(left) is type(right) and len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict):
        return list(left) == list(right) and all(same(left[key], right[key]) for key in left)
    return type(left) is type(right) and bool(left == right)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tree=TREES)
def test_plain_values_come_back_with_types_and_key_order(tmp_path: Path, tree: Any) -> None:
    write(tmp_path, tree)
    assert same(read(tmp_path), tree)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_tensors_of_every_dtype_and_shape_come_back_to_the_bit(tmp_path: Path, dtype: torch.dtype) -> None:
    tree = {
        "flat": torch.arange(6).to(dtype),
        "scalar": torch.tensor(1).to(dtype),
        7: torch.empty(0, 3).to(dtype),
    }
    write(tmp_path, tree)
    assert same(read(tmp_path), tree)


def test_infinities_and_nan_come_back(tmp_path: Path) -> None:
    write(tmp_path, [float("inf"), float("-inf"), float("nan"), -0.0])
    up, down, nan, zero = read(tmp_path)
    assert (up, down, str(zero)) == (float("inf"), float("-inf"), "-0.0")
    assert nan != nan


def test_a_tensor_that_stands_twice_is_stored_once_and_read_as_one(tmp_path: Path) -> None:
    tied = torch.randn(1000, 100)
    write(tmp_path, {"encoder": tied, "decoder": tied, "other": torch.randn(1)})
    tree = read(tmp_path)
    assert tree["encoder"] is tree["decoder"]
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 1.1 * tied.nbytes


def test_views_of_one_memory_that_differ_are_kept_apart(tmp_path: Path) -> None:
    base = torch.arange(12.0).reshape(3, 4)
    write(tmp_path, [base, base.T, base[1:], base[0]])
    assert same(read(tmp_path), [base, base.T, base[1:], base[0]])


def test_the_state_of_a_real_optimizer_and_scheduler_comes_back(tmp_path: Path) -> None:
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)
    model(torch.randn(4, 3)).sum().backward()
    optimizer.step()
    scheduler.step()
    tree = {"optimizer": optimizer.state_dict(), "scheduler": scheduler.state_dict()}
    write(tmp_path, tree)
    assert same(read(tmp_path), tree)


def test_what_a_checkpoint_cannot_hold_is_named_by_its_place(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"tree\.model\[1\] is a set"):
        write(tmp_path, {"model": [0, {1}]})
    with pytest.raises(CheckpointError, match="dense"):
        write(tmp_path, torch.eye(2).to_sparse())


def test_old_tensors_are_removed(tmp_path: Path) -> None:
    for value in range(3):
        write(tmp_path, torch.full((3,), value))
    assert len(list(tmp_path.iterdir())) == 2


def test_a_missing_checkpoint_says_which_file_is_missing(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"tree\.json is missing"):
        read(tmp_path / "nowhere")
    write(tmp_path, torch.ones(3))
    tensors_file(tmp_path).unlink()
    with pytest.raises(CheckpointError, match=r"\.safetensors is missing"):
        read(tmp_path)


@pytest.mark.parametrize("damage", [slice(-1), slice(50), slice(0)])
@pytest.mark.parametrize("name", ["tree", "tensors"])
def test_a_truncated_file_is_named(tmp_path: Path, name: str, damage: slice) -> None:
    write(tmp_path, {"weight": torch.ones(3), "step": 12})
    path = tmp_path / TREE if name == "tree" else tensors_file(tmp_path)
    path.write_bytes(path.read_bytes()[damage])
    with pytest.raises(CheckpointError, match=f"{name}.* is damaged"):
        read(tmp_path)


@pytest.mark.parametrize("name", ["tree", "tensors"])
def test_a_changed_value_is_noticed(tmp_path: Path, name: str) -> None:
    write(tmp_path, {"weight": torch.zeros(3), "step": 12})
    path = tmp_path / TREE if name == "tree" else tensors_file(tmp_path)
    content = path.read_bytes()
    changed = content.replace(b"12}", b"13}") if name == "tree" else content[:-1] + b"\1"
    assert changed != content
    path.write_bytes(changed)
    with pytest.raises(CheckpointError, match=f"{name}.* is damaged"):
        read(tmp_path)


def test_a_checkpoint_of_a_later_format_is_refused(tmp_path: Path) -> None:
    write(tmp_path, 1)
    path = tmp_path / TREE
    path.write_bytes(path.read_bytes().replace(b'"format":1', b'"format":2'))
    with pytest.raises(CheckpointError, match="format 2"):
        read(tmp_path)


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("which", [1, 2, 3, 4])
def test_a_disk_that_fills_up_leaves_a_whole_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, which: int
) -> None:
    write(tmp_path, {"step": 1, "weight": torch.ones(3)})
    with monkeypatch.context() as patch:
        failing = fails_at(which, vars(os)[call], OSError(errno.ENOSPC, "No space left on device"))
        patch.setattr(os, call, failing)
        if failing_call_is_reached := (call, which) not in {("replace", 3), ("replace", 4)}:
            with pytest.raises(CheckpointError, match="No space left on device"):
                write(tmp_path, {"step": 2, "weight": torch.zeros(3)})
    if failing_call_is_reached:
        assert_is_whole(tmp_path, {1, 2})
        assert not list(tmp_path.glob("*.part"))


def test_a_write_that_stops_in_the_middle_of_a_file_leaves_the_old_checkpoint(tmp_path: Path) -> None:
    write(tmp_path, {"step": 1, "weight": torch.ones(3)})
    with largest_file(1000), pytest.raises(CheckpointError, match="cannot write checkpoint"):
        write(tmp_path, {"step": 2, "weight": torch.zeros(10_000)})
    assert_is_whole(tmp_path, {1})
    write(tmp_path, {"step": 3, "weight": torch.zeros(10_000)})
    assert_is_whole(tmp_path, {3})


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("which", [1, 2, 3, 4])
def test_a_process_that_dies_at_any_system_call_leaves_a_whole_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, which: int
) -> None:
    class Death(BaseException):
        pass

    write(tmp_path, {"step": 1, "weight": torch.ones(3)})
    with monkeypatch.context() as patch:
        patch.setattr(os, call, fails_at(which, vars(os)[call], Death()))
        with suppress(Death):
            write(tmp_path, {"step": 2, "weight": torch.full((3,), 2.0)})
    assert_is_whole(tmp_path, {1, 2})


def test_a_killed_writer_leaves_a_whole_checkpoint(tmp_path: Path) -> None:
    write(tmp_path, {"step": 0, "weight": torch.zeros(20_000)})
    for num_writes in range(1, 13):
        kill_writer_after(num_writes, tmp_path)
        tree = read(tmp_path)
        assert torch.equal(tree["weight"], torch.full((20_000,), float(tree["step"])))
        assert tree["step"] >= num_writes - 1


def kill_writer_after(num_writes: int, folder: Path) -> None:
    """SIGKILL a child that writes without end, once it has begun its ``num_writes``-th write."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        step = 0
        while True:
            step += 1
            os.write(writer, b".")
            write(folder, {"step": step, "weight": torch.full((20_000,), float(step))})
    for _ in range(num_writes):
        os.read(reader, 1)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(reader)
    os.close(writer)


def assert_is_whole(folder: Path, steps: set[int]) -> None:
    tree = read(folder)
    assert tree["step"] in steps
    value = {1: 1.0, 2: tree["weight"][0].item(), 3: 0.0}[tree["step"]]
    assert (tree["weight"] == value).all()


def tensors_file(folder: Path) -> Path:
    (path,) = folder.glob("tensors-*")
    return path


def fails_at(which: int, function: Callable[..., Any], error: BaseException) -> Callable[..., Any]:
    calls = iter(range(1, 1000))

    def failing(*args: Any) -> Any:
        if next(calls) == which:
            raise error
        return function(*args)

    return failing


@contextmanager
def largest_file(num_bytes: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
