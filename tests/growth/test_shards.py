"""A path is cut in a sharded model as in a whole one."""

from __future__ import annotations

from pathlib import Path

import pytest

from growth.torchrun import flat, seen_by_two

WORKER = Path(__file__).with_name("shards_worker.py")


def test_after_a_cut_all_that_is_left_has_the_gradients_of_the_whole_model(tmp_path: Path) -> None:
    for found in seen_by_two(WORKER, tmp_path):
        for parts, alone in found:
            assert parts.keys() == alone.keys()
            idle = {name for name, gradient in alone.items() if gradient is None}
            assert idle == {name for name, gradient in parts.items() if gradient is None}
            assert idle == {"branch.weight", "branch.bias"}
            for name in alone.keys() - idle:
                assert flat(parts[name]) == pytest.approx(flat(alone[name]), abs=1e-5)
