"""Reads inputs and output gradients of sites from passes that run anyway. Does not know what they are used for.

Only tensor hooks are used: module backward hooks fail under in-place successors, and a kept output is overwritten by
them.
"""

from __future__ import annotations

import weakref
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from esper.surgery.site import Site
from esper.surgery.structure import first_input, first_output

MAX_PASSES = 8


class Pair(NamedTuple):
    """What one backward pass showed of one site: ``x`` as a graft would read it, ``g = dL/dz`` at its output, ``z``."""

    x: Tensor
    g: Tensor
    z: Tensor


class _Eager:
    """Holds torch in eager mode while any capture of the process is armed: compiled code sees no hook after it."""

    def __init__(self) -> None:
        self._num_armed = 0
        self._stance = ExitStack()

    def begin(self) -> None:
        self._num_armed += 1
        if self._num_armed == 1:
            self._stance.enter_context(torch.compiler.set_stance("force_eager"))

    def end(self) -> None:
        self._num_armed -= 1
        if self._num_armed == 0:
            self._stance.close()


_eager = _Eager()


class _Hook:
    """Calls a method of a capture for as long as that lives; a copy of it, in a copied model, calls nothing."""

    def __init__(self, method: Callable[..., None] | None = None, *first: object) -> None:
        self._method = None if method is None else weakref.WeakMethod(method)
        self._first = first

    def __call__(self, *args: object) -> None:
        method = None if self._method is None else self._method()
        if method is not None:
            method(*self._first, *args)

    def __reduce__(self) -> tuple[type[_Hook], tuple[()]]:
        return _Hook, ()


def _disarm(handles: list[RemovableHandle]) -> None:
    for handle in handles:
        handle.remove()
    handles.clear()
    _eager.end()


class Capture:
    """Tensor hooks at a set of sites; nothing is in the model's path while it is not armed.

    One that nobody holds any more disarms itself. A forward pass counts only once its gradient arrives, so validation
    passes and recomputation leave nothing behind. With gradient accumulation each micro-batch gives a pair; the last
    ``MAX_PASSES`` are kept.
    """

    def __init__(self, model: nn.Module, sites: Iterable[Site]) -> None:
        self._model = model
        self.sites = tuple(sites)
        self._pairs: dict[str, list[Pair]] = defaultdict(list)
        self._inputs: dict[str, Tensor] = {}
        self._handles: list[RemovableHandle] = []
        self._finalizer: weakref.finalize[..., Any] | None = None

    @property
    def armed(self) -> bool:
        """Whether hooks are in place."""
        return self._finalizer is not None

    def arm(self) -> None:
        """Place the hooks; the next passes are read."""
        if self._finalizer is not None:
            return
        _eager.begin()
        self._finalizer = weakref.finalize(self, _disarm, self._handles)
        by_exit: dict[str, list[Site]] = defaultdict(list)
        for site in self.sites:
            by_exit[site.exit].append(site)
        for entry in sorted({site.entry for site in self.sites if site.is_span}):
            self._hook(entry, _Hook(self._keep_input, entry))
        for name, sites in by_exit.items():
            self._hook(name, _Hook(self._watch_output, tuple(sites)))
        # Last, so that a root module that is an exit itself has been read.
        self._handles.append(self._model.register_forward_hook(_Hook(self._end_pass)))

    def disarm(self) -> None:
        """Remove the hooks and forget inputs still waiting for their gradient."""
        if self._finalizer is not None:
            self._finalizer()
            self._finalizer = None
        self._inputs.clear()

    def take(self) -> dict[str, list[Pair]]:
        """The pairs since the last call, by site name; sites without a gradient are missing."""
        pairs, self._pairs = dict(self._pairs), defaultdict(list)
        return pairs

    def _hook(self, name: str, hook: _Hook) -> None:
        module = self._model.get_submodule(name)
        self._handles.append(module.register_forward_hook(hook, with_kwargs=True))

    def _end_pass(self, *_: object) -> None:
        """An exit that is called by itself later must not find an earlier pass's input."""
        self._inputs.clear()

    def _keep_input(
        self, entry: str, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], __: Any
    ) -> None:
        x = first_input(args, kwargs)
        if x is None:
            self._inputs.pop(entry, None)
        else:
            self._inputs[entry] = x.detach().clone()

    def _watch_output(
        self, sites: Sequence[Site], _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
    ) -> None:
        z = first_output(output)
        if z is None or not z.requires_grad:
            return
        value = z.detach().clone()
        own = self._inputs.get(sites[0].exit)  # kept a moment ago, where a span begins here
        if own is None and any(site.attachment == "beside" and not site.is_span for site in sites):
            found = first_input(args, kwargs)
            own = None if found is None else found.detach().clone()
        inputs = {site.name: self._source(site, own, value) for site in sites}
        z.register_hook(_Hook(self._on_gradient, inputs, value))

    def _source(self, site: Site, own: Tensor | None, value: Tensor) -> Tensor | None:
        if site.attachment == "after":
            return value
        return self._inputs.get(site.entry) if site.is_span else own

    def _on_gradient(self, inputs: dict[str, Tensor | None], value: Tensor, gradient: Tensor) -> None:
        for name, x in inputs.items():
            if x is not None:
                pairs = self._pairs[name]
                pairs.append(Pair(x, gradient.detach(), value))
                del pairs[:-MAX_PASSES]
