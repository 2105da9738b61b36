"""A function whose every call is an episode. Knows how an episode is started, not where it is kept."""

from __future__ import annotations

import functools
import inspect
import time
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from esper.memory.recording import Recording

P = ParamSpec("P")
R = TypeVar("R")

_LONGEST = 500


def recorded(function: Callable[P, R], start: Callable[[], Recording]) -> Callable[P, R]:
    """The function, with one episode and one step a call; an exception fails the episode and is raised again."""
    signature = inspect.signature(function)
    name = function.__name__

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        told = _told(signature, args, kwargs)
        with start() as episode:
            begun = time.perf_counter()
            try:
                result = function(*args, **kwargs)
            except Exception as error:
                reason = f"{type(error).__name__}: {error}"
                episode.step(name, parameters=told, error=reason, latency=time.perf_counter() - begun)
                raise
            episode.step(name, parameters=told, result=_short(result), latency=time.perf_counter() - begun)
        return result

    return call


def _told(signature: inspect.Signature, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError:
        return {}  # the call itself will raise, and say it better
    return {name: _short(value) for name, value in bound.arguments.items()}


def _short(value: object) -> object:
    if value is None or isinstance(value, bool | int | float):
        return value
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
