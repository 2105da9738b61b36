"""A sharded network is grown and finished as a whole one, goes on, and is sharded afterwards as it was before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from growth.torchrun import flat, seen_by_two

WORKER = Path(__file__).with_name("sharded_growth_worker.py")


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two ranks saw."""
    return seen_by_two(WORKER, tmp_path_factory.mktemp("sharded"))


def assert_equal(found: dict[str, Any], wanted: dict[str, Any], *names: str) -> None:
    """To what float32 sums in another order leave over."""
    for name in names:
        own, other = found[name], wanted[name]
        if isinstance(own, dict):
            assert own.keys() == other.keys()
            own, other = list(own.values()), list(other.values())
        assert flat(own) == pytest.approx(flat(other), abs=1e-5)


def test_a_sharded_network_is_grown_and_cut_as_a_whole_one(ranks: list[dict[str, Any]]) -> None:
    for found in ranks:
        record = found["alone"]["record"]
        assert [op["op"] for op in record] == ["attach", "cut", "attach", "attach", "merge", "widen", "fold"]
        assert found["sharded"]["record"] == record


def test_finish_leaves_the_plain_layers_that_it_leaves_in_one_process(ranks: list[dict[str, Any]]) -> None:
    for found in ranks:
        assert found["sharded"]["classes"] == found["alone"]["classes"]
        assert_equal(found["sharded"], found["alone"], "folded")


def test_the_optimizer_goes_on_with_the_larger_layers(ranks: list[dict[str, Any]]) -> None:
    for found in ranks:
        assert found["sharded"]["order"] == found["alone"]["order"]
        assert_equal(found["sharded"], found["alone"], "gradients", "weights", "moments", "ages", "outputs")


def test_what_has_become_of_the_layers_is_sharded_as_they_were(ranks: list[dict[str, Any]]) -> None:
    for found in ranks:
        before, after = found["before"], found["after"]
        assert after["units"] == before["units"] == ["", "0", "2"]
        assert after["resharded"] is before["resharded"] is False
        assert before["parameters"]["2.weight"] == after["parameters"]["0.weight"] == "(Shard(dim=1),)"
        others = after["parameters"].keys() - {
            "0.weight"
        }  # of 2 there are 11 columns now, which two cannot share
        assert {after["parameters"][name] for name in others} == {"(Shard(dim=0),)"}
        assert after["moments"] == [True]


def test_a_finished_network_is_rebuilt_from_the_record_under_a_fresh_sharded_one(
    ranks: list[dict[str, Any]],
) -> None:
    for found in ranks:
        again, wanted = found["again"], found["sharded"]
        for name in ("record", "classes", "order"):
            assert again[name] == wanted[name]
        assert_equal(again, wanted, "weights", "moments", "ages", "outputs")


def test_the_guard_puts_back_what_was_attached_and_cut_in_a_sharded_network(
    ranks: list[dict[str, Any]],
) -> None:
    for found in ranks:
        alone, sharded = found["undone"]
        assert sorted(sharded["weights"]) == [
            "0.bias",
            "0.weight",
            "2.bias",
            "2.weight",
            "4.bias",
            "4.weight",
        ]
        assert_equal(sharded, alone, "weights", "outputs")


def test_layers_that_tensor_parallelism_has_cut_are_refused(ranks: list[dict[str, Any]]) -> None:
    for found in ranks:
        assert found["refusal"].startswith("the model is sharded by tensor parallelism besides fully_shard")
