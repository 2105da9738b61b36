"""A slow or dead embedder costs a recall its deadline at most, and soon nothing at all."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from esper.errors import EmbeddingError
from esper.memory.recall.embeddings import CallableEmbedder
from esper.memory.recall.guarded import CircuitBreaker, GuardedEmbedder


class Clock:
    """Time that moves when told to."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class Provider:
    """Answers, fails or hangs as it is told."""

    def __init__(self) -> None:
        self.mode = "answers"
        self.calls = 0
        self.released = threading.Event()

    def __call__(self, texts: Sequence[str]) -> list[list[float]]:
        self.calls += 1
        if self.mode == "hangs":
            self.released.wait()
        if self.mode == "fails":
            raise RuntimeError("no such model")
        return [[1.0, 0.0]] * len(texts)


@pytest.fixture
def provider() -> Iterator[Provider]:
    made = Provider()
    yield made
    made.released.set()


@pytest.fixture
def clock() -> Clock:
    return Clock()


def _guarded(provider: Provider, clock: Clock, deadline: float = 30.0) -> GuardedEmbedder:
    embedder = CallableEmbedder(provider, name="provider", dimension=2)
    breaker = CircuitBreaker(failures=2, rest=10.0, clock=clock)
    return GuardedEmbedder(embedder, deadline=deadline, breaker=breaker)


def _fails(guarded: GuardedEmbedder, match: str) -> None:
    with pytest.raises(EmbeddingError, match=match):
        guarded.embed(["x"])


def test_an_answer_in_time_is_passed_on(provider: Provider, clock: Clock) -> None:
    np.testing.assert_array_equal(_guarded(provider, clock).embed(["x"]), [[1.0, 0.0]])


def test_an_error_of_any_kind_is_an_embedding_error_with_its_cause(provider: Provider, clock: Clock) -> None:
    provider.mode = "fails"
    with pytest.raises(EmbeddingError, match="no such model") as raised:
        _guarded(provider, clock).embed(["x"])
    assert isinstance(raised.value.__cause__, RuntimeError)


def test_an_embedder_that_hangs_is_left_at_its_deadline(provider: Provider, clock: Clock) -> None:
    provider.mode = "hangs"
    _fails(_guarded(provider, clock, deadline=0.01), "within 0.01 s")


def test_after_failures_in_a_row_it_is_not_asked_any_more(provider: Provider, clock: Clock) -> None:
    guarded, provider.mode = _guarded(provider, clock), "fails"
    for _ in range(2):
        _fails(guarded, "failed: ")
    _fails(guarded, "rests")
    assert provider.calls == 2
    assert guarded.breaker.is_open


def test_an_answer_between_failures_starts_the_count_anew(provider: Provider, clock: Clock) -> None:
    guarded = _guarded(provider, clock)
    for mode in ("fails", "answers", "fails"):
        provider.mode = mode
        if mode == "fails":
            _fails(guarded, "failed: ")
        else:
            guarded.embed(["x"])
    assert not guarded.breaker.is_open


def test_after_a_rest_one_answer_closes_the_circuit(provider: Provider, clock: Clock) -> None:
    guarded, provider.mode = _guarded(provider, clock), "fails"
    for _ in range(2):
        _fails(guarded, "failed: ")
    clock.now, provider.mode = 10.0, "answers"
    guarded.embed(["x"])
    assert not guarded.breaker.is_open


def test_after_a_rest_one_failure_opens_it_again(provider: Provider, clock: Clock) -> None:
    guarded, provider.mode = _guarded(provider, clock), "fails"
    for _ in range(2):
        _fails(guarded, "failed: ")
    clock.now = 10.0
    _fails(guarded, "failed: ")
    clock.now = 19.9
    _fails(guarded, "rests")


def test_after_a_rest_only_one_caller_tries(clock: Clock) -> None:
    breaker = CircuitBreaker(failures=1, rest=10.0, clock=clock)
    breaker.failed()
    clock.now = 10.0
    assert [breaker.admit(), breaker.admit()] == [True, False]
