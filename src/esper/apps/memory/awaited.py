"""The memory in asyncio: whatever blocks runs in a thread. Knows no method by name, so that none exists twice."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

from esper.memory.memory import Memory
from esper.memory.recording import Recording

T = TypeVar("T")
R = TypeVar("R")
P = ParamSpec("P")


class Awaited(Generic[T]):
    """A memory, or an open episode, whose methods are awaited: ``await memory(Memory.recall, "flaky", k=3)``."""

    def __init__(self, wrapped: T) -> None:
        self.wrapped = wrapped

    async def __call__(self, method: Callable[Concatenate[T, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        """What the method gives, or raises."""
        return await asyncio.to_thread(method, self.wrapped, *args, **kwargs)


@asynccontextmanager
async def awaited_episode(
    memory: Awaited[Memory], task: str, **options: Any
) -> AsyncIterator[Awaited[Recording]]:
    """An episode as ``async with``; ``options`` are those of ``Memory.episode``.

    It succeeds at the end of the block unless an outcome was given; an exception fails it, a cancellation abandons it,
    and both are raised again.
    """
    recording = await memory(lambda inner: inner.episode(task, **options))
    try:
        yield Awaited(recording)
    except BaseException:
        await asyncio.shield(asyncio.to_thread(recording.__exit__, *sys.exc_info()))
        raise
    await asyncio.to_thread(recording.__exit__, None, None, None)
