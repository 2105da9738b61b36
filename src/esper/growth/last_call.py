"""Remembers how the model was called last, so that a loop without a closure can still be repeated. Knows no loss.

Only calls with gradients count, those of training; nothing is in the model's path while it does not listen.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from esper.errors import ClosureError
from esper.growth.batch import copied
from esper.surgery.eager import eager

LossOf = Callable[[Any], Tensor]


@dataclass(frozen=True)
class Autocast:
    """How torch casts by itself on one kind of device."""

    device: str
    enabled: bool
    dtype: torch.dtype
    cached: bool

    @classmethod
    def now(cls, model: nn.Module) -> list[Autocast]:
        """On the CPU, and on every kind of device that holds parameters of ``model``."""
        cached = torch.is_autocast_cache_enabled()
        return [
            cls(device, torch.is_autocast_enabled(device), torch.get_autocast_dtype(device), cached)
            for device in sorted({"cpu", *(p.device.type for p in model.parameters())})
        ]

    def again(self) -> torch.autocast:
        """A context that casts in this way."""
        return torch.autocast(self.device, dtype=self.dtype, enabled=self.enabled, cache_enabled=self.cached)


@dataclass(frozen=True)
class Call:
    """One call of a model: its arguments, safe from what is written into the tensors later, and how torch cast."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    casts: list[Autocast]

    def repeat(self, model: nn.Module, loss: LossOf) -> Tensor:
        """Call ``model`` in the same way and take the loss of what it returns, cast like the call."""
        args, kwargs = copied((self.args, self.kwargs))
        with _cast(self.casts):
            return loss(model(*args, **kwargs))


class LastCall:
    """Listens to calls of ``model`` itself, not of its parts nor of copies that a wrapper made.

    One that nobody holds any more stops listening.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._call: Call | None = None
        self._finalizer: weakref.finalize[..., Any] | None = None

    def listen(self) -> None:
        """Remember the next call, and after it always the latest one."""
        if self._finalizer is not None:
            return
        handle = self._model.register_forward_pre_hook(_Note(self), with_kwargs=True)
        eager.begin()
        self._finalizer = weakref.finalize(self, _deafen, handle)

    def stop(self) -> None:
        """Listen no longer, and forget the call."""
        if self._finalizer is not None:
            self._finalizer()
            self._finalizer = None
        self._call = None

    def take(self, loss: LossOf) -> Callable[[], Tensor]:
        """A closure that repeats the call, which it alone holds from now on; `stop` is included."""
        call, model = self._call, self._model
        self.stop()

        def closure() -> Tensor:
            if call is None:
                raise ClosureError(
                    "the model that is grown has not been called with gradients since the last step, so there is "
                    "no call to repeat: call the very model that was given to Grower, or give step() a closure"
                )
            return call.repeat(model, loss)

        return closure

    def note(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Remember a call."""
        args, kwargs = copied((args, kwargs))
        self._call = Call(args, kwargs, Autocast.now(self._model))


class _Note:
    """A hook that holds its listener weakly; a copy of it, in a copied model, does nothing."""

    def __init__(self, listener: LastCall | None = None) -> None:
        self._listener = None if listener is None else weakref.ref(listener)

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        listener = None if self._listener is None else self._listener()
        if listener is not None and module is listener._model and torch.is_grad_enabled():
            listener.note(args, kwargs)

    def __reduce__(self) -> tuple[type[_Note], tuple[()]]:
        return _Note, ()


def _deafen(handle: RemovableHandle) -> None:
    handle.remove()
    eager.end()


@contextmanager
def _cast(casts: list[Autocast]) -> Iterator[None]:
    with ExitStack() as stack:
        for cast in casts:
            stack.enter_context(cast.again())
        yield
