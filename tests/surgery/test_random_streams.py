from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from esper.surgery.random_streams import random_streams

DRAWS: tuple[Callable[[], object], ...] = (
    random.random,
    lambda: random.gauss(0, 1),
    np.random.random,
    np.random.standard_normal,
    lambda: np.random.permutation(700),
    lambda: torch.rand(3),
    lambda: torch.randn(1),
)


def put_back(kept: list[tuple[Callable[[object], object], object]]) -> None:
    for restore, state in kept:
        restore(state)


def upcoming() -> list[float]:
    numbers = [
        random.gauss(0, 1),
        np.random.standard_normal(),
        np.random.standard_normal(),
        np.random.random(),
    ]
    return [*numbers, random.random(), torch.rand(()).item()]


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    before = list(random_streams())
    yield
    put_back(before)


@given(
    seed=st.integers(0, 2**32 - 1),
    before=st.lists(st.sampled_from(DRAWS), max_size=4),
    inside=st.lists(st.lists(st.sampled_from(DRAWS), max_size=4), max_size=3),
)
def test_streams_go_on_as_if_nothing_had_been_drawn(
    seed: int, before: list[Callable[[], object]], inside: list[list[Callable[[], object]]]
) -> None:
    def numbers(*, disturbed: bool) -> list[float]:
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        for draw in before:
            draw()
        for draws in inside:
            kept = list(random_streams())
            if disturbed:
                for draw in draws:
                    draw()
            put_back(kept)
        return upcoming()

    assert numbers(disturbed=True) == numbers(disturbed=False)


def test_another_bit_generator_of_numpy_is_kept_too() -> None:
    original = np.random.get_bit_generator()
    np.random.set_bit_generator(np.random.PCG64(3))
    try:
        kept = list(random_streams())
        first = np.random.random()
        put_back(kept)
        assert np.random.random() == first
    finally:
        np.random.set_bit_generator(original)


def test_the_streams_of_every_device_in_use_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    devices = (torch.Generator().manual_seed(1), torch.Generator().manual_seed(2))
    monkeypatch.setattr(torch.cuda, "default_generators", devices)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    metal = torch.Generator().manual_seed(3)
    monkeypatch.setattr(torch.mps, "get_rng_state", metal.get_state)
    monkeypatch.setattr(torch.mps, "set_rng_state", metal.set_state)
    kept = list(random_streams())
    first = [torch.rand(2, generator=generator).tolist() for generator in (*devices, metal)]
    put_back(kept)
    assert [torch.rand(2, generator=generator).tolist() for generator in (*devices, metal)] == first
