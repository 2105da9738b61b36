"""Built-in tasks: each makes a model that fits its data, the same every time."""

from __future__ import annotations

import gzip
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from esper.errors import DataError
from esper.training.builtin import CATALOGUE, chars, fashion, mnist1d
from esper.training.network import layers, num_macs, num_params


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ESPER_HOME", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("name", sorted(set(CATALOGUE) - {"fashion", "chars"}))
def test_a_task_evaluates_its_start_network_and_is_the_same_twice(name: str) -> None:
    task, again = (CATALOGUE[name].make(0) for _ in range(2))
    loss, metric = task.evaluate(task.make_model(0), task.sets.held_out)
    assert loss > 0
    assert metric is not None
    assert task.sets.sha256() == again.sets.sha256()
    assert task.name == name


def test_mnist1d_is_what_its_package_makes_by_default_and_leaves_global_random_streams_alone(
    home: Path,
) -> None:
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()  # type: ignore[union-attr]
    task = CATALOGUE["mnist1d"].make(0)
    assert random.getstate() == before[0]
    assert np.random.get_state()[1].tolist() == before[1]  # type: ignore[union-attr]
    assert torch.equal(torch.get_rng_state(), before[2])
    assert task.sets.sizes == {"training": 3_500, "held-out": 500, "test": 1_000}
    assert task.sets.train[1][:8].tolist() == FIRST_LABELS
    assert (home / "data" / "mnist1d" / "tree.json").exists()


FIRST_LABELS = [2, 6, 4, 5, 6, 6, 6, 0]


def test_the_start_network_of_mnist1d_has_the_size_that_the_tables_state() -> None:
    network = mnist1d.start_network()
    x = torch.zeros(1, 40)
    assert num_params(network) == 2_698
    assert num_macs(network, (x, x)) == 40 * 32 + 32 * 32 + 32 * 10
    assert [(layer.name, layer.shape_out, layer.params) for layer in layers(network, (x, x))] == [
        ("l1", [32], 1_312), ("r1", [32], 0), ("l2", [32], 1_056), ("r2", [32], 0), ("l3", [10], 330),
    ]  # fmt: skip


def idx(folder: Path, name: str, values: np.ndarray) -> None:
    head = bytes([0, 0, 8, values.ndim]) + b"".join(size.to_bytes(4, "big") for size in values.shape)
    (folder / name).write_bytes(gzip.compress(head + values.astype(np.uint8).tobytes()))


def make_fashion(folder: Path) -> None:
    labels = np.arange(12_100) % 10
    images = np.repeat(labels * 20, 784).reshape(-1, 28, 28)
    idx(folder, "train-images-idx3-ubyte.gz", images)
    idx(folder, "train-labels-idx1-ubyte.gz", labels)
    idx(folder, "t10k-images-idx3-ubyte.gz", images[:50])
    idx(folder, "t10k-labels-idx1-ubyte.gz", labels[:50])


def test_fashion_reads_the_files_of_the_debian_package(tmp_path: Path) -> None:
    make_fashion(tmp_path)
    task = fashion.task(0, folder=tmp_path)
    assert task.sets.sizes == {"training": 10_000, "held-out": 2_000, "test": 50}
    images, labels = task.sets.train
    assert images.shape == (10_000, 1, 28, 28)
    assert torch.allclose(images[:, 0, 3, 5], labels * 20 / 255 - 0.5)
    task.evaluate(task.make_model(0), task.sets.held_out)


def test_fashion_says_how_to_install_it_and_which_file_is_damaged(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="sudo apt install dataset-fashion-mnist"):
        fashion.task(0, folder=tmp_path / "none")
    make_fashion(tmp_path)
    path = tmp_path / "train-images-idx3-ubyte.gz"
    whole = gzip.decompress(path.read_bytes())
    for content in (gzip.compress(whole[:-1]), b"no gzip", gzip.compress(whole)[:100]):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"train-images.* is damaged"):
            fashion.task(0, folder=tmp_path)


def test_chars_predicts_the_character_after_its_window(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, size in (("NUM_TRAIN", 40), ("NUM_HELD_OUT", 20), ("NUM_TEST", 20)):
        monkeypatch.setattr(chars, name, size)
    for number in range(4):
        (tmp_path / f"part{number}.py").write_text("abcdefghijklmnopq" * 30 + "ü")
    task = chars.task(0, folder=tmp_path)
    windows, targets = task.sets.train
    assert windows.shape == (40, 16)
    assert {chars.ALPHABET[target] for target in targets.tolist()} == {"q"}
    task.evaluate(task.make_model(0), task.sets.held_out)


def test_chars_keeps_the_sets_in_files_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, size in (("NUM_TRAIN", 30), ("NUM_HELD_OUT", 20), ("NUM_TEST", 20)):
        monkeypatch.setattr(chars, name, size)
    for letter in "abcdefgh":
        (tmp_path / f"{letter}.py").write_text(letter * 17 * 12)
    sets = chars.task(0, folder=tmp_path).sets
    letters = [set(part.tolist()) for part in (sets.train[1], sets.held_out[1], sets.test.open()[1])]
    assert sum(map(len, letters)) == len(set().union(*letters)) == 7


def test_chars_needs_text(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="too little Python text"):
        chars.task(0, folder=tmp_path)
