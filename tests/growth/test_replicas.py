"""Gradients of live grafts under DistributedDataParallel: one message, whatever paths the ranks take."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from growth.torchrun import flat, seen_by_two

WORKER = Path(__file__).with_name("replicas_worker.py")


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two ranks saw."""
    return seen_by_two(WORKER, tmp_path_factory.mktemp("replicas"))


def test_the_gradients_of_all_grafts_are_averaged_in_one_message(ranks: list[dict[str, Any]]) -> None:
    for found in ranks:
        messages, gradients = found["all"]
        assert messages == 1
        assert flat(gradients) == pytest.approx(flat(found["alone"]))


def test_a_graft_that_only_some_ranks_use_gets_their_share(ranks: list[dict[str, Any]]) -> None:
    for found in ranks:
        messages, gradients = found["first"]
        assert messages == 1
        assert flat(gradients) == pytest.approx([number / 4 for number in flat(found["alone"])])


def test_a_graft_that_no_rank_uses_has_no_gradient(ranks: list[dict[str, Any]]) -> None:
    for found in ranks:
        messages, gradients = found["none"]
        assert messages == 1
        assert set(gradients) == {None}


def test_nothing_is_sent_under_no_sync(ranks: list[dict[str, Any]]) -> None:
    for scale, found in zip((1, 3), ranks, strict=True):
        messages, gradients = found["quiet"]
        assert messages == 0
        assert flat(gradients) == pytest.approx([number * scale / 2 for number in flat(found["alone"])])


def test_a_graft_that_was_taken_out_is_not_sent_and_after_the_last_one_nothing_is(
    ranks: list[dict[str, Any]],
) -> None:
    for found in ranks:
        assert found["detached"] == [1, [None] * len(found["alone"])]
        assert found["bare"] == [0, [None] * len(found["alone"])]
        assert found["hooks"] == 0


def test_a_wrapper_that_waits_for_every_gradient_gets_zeros_for_a_path_that_was_cut(
    ranks: list[dict[str, Any]],
) -> None:
    for found in ranks:
        wrapped, alone = found["cut"]
        own = ("branch.weight", "branch.bias")
        assert all(alone[name] is None and not any(flat(wrapped[name])) for name in own)
        others = [name for name in alone if name not in own]
        assert flat([wrapped[name] for name in others]) == pytest.approx(
            flat([alone[name] for name in others])
        )
