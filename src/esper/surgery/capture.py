"""Reads inputs and output gradients of sites from passes that run anyway. Does not know what they are used for.

Only tensor hooks are used: module backward hooks fail under in-place successors, and a kept output is overwritten by
them.
"""

from __future__ import annotations

import weakref
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.utils.hooks import RemovableHandle

from esper.surgery.eager import eager
from esper.surgery.site import Port, Site
from esper.surgery.structure import first_input, first_output

MAX_PASSES = 8


class Pair(NamedTuple):
    """What one backward pass showed of one site: ``x`` as a graft would read it, ``g = dL/dz`` at its output.

    ``z``, the output itself, is empty where it was not asked for.
    """

    x: Tensor
    g: Tensor
    z: Tensor


class Pick(Protocol):
    """What is kept of a tensor that was seen at a port; it may be a view, and equal picks keep the same."""

    def __call__(self, tensor: Tensor, port: Port) -> Tensor:
        """The part to keep."""


def whole(tensor: Tensor, port: Port) -> Tensor:  # noqa: ARG001 - a `Pick`
    """All of it."""
    return tensor


def _pick_whole(_: Site) -> Pick:
    return whole


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
    eager.end()


class _Kept(NamedTuple):
    """A tensor, and the version that it had when it was kept."""

    tensor: Tensor
    version: int

    @property
    def spoilt(self) -> bool:
        """Whether something has been written into it since."""
        return not self.tensor.is_inference() and self.tensor._version != self.version


@dataclass(frozen=True, eq=False)
class _Part:
    """What is kept of the tensors at one port; sites that keep the same share one. Inputs may be ``borrowed``."""

    pick: Pick
    port: Port
    borrowed: bool = False

    def of(self, tensor: Tensor) -> Tensor:
        """The part to keep, which does not hold on to the rest."""
        part = self.pick(tensor, self.port)
        return part.clone() if part.numel() < tensor.numel() and _share_memory(part, tensor) else part

    def safe(self, tensor: Tensor) -> Tensor:
        """The part to keep, safe from what is written into the tensor later unless it is borrowed."""
        part = self.pick(tensor, self.port)
        borrowed = (
            self.borrowed and not part.is_inference()
        )  # such a tensor does not tell what is written into it
        return part.clone() if not borrowed and _share_memory(part, tensor) else part


def _share_memory(a: Tensor, b: Tensor) -> bool:
    return a.untyped_storage().data_ptr() == b.untyped_storage().data_ptr()


class _View(NamedTuple):
    """A site, and what is kept at its two ports."""

    site: Site
    source: _Part
    target: _Part


def _views(sites: Iterable[Site], pick: Callable[[Site], Pick], borrow: Collection[str]) -> dict[str, _View]:
    known: dict[tuple[Pick, Port, bool], _Part] = {}

    def part(chosen: Pick, port: Port, borrowed: bool = False) -> _Part:
        return known.setdefault((chosen, port, borrowed), _Part(chosen, port, borrowed))

    picks = {site: pick(site) for site in sites}
    return {
        s.name: _View(s, part(own, s.source, s.name in borrow), part(own, s.target))
        for s, own in picks.items()
    }


class _Parts(dict[_Part, _Kept]):
    """Parts of one tensor, made where they are missing."""

    def __init__(self, tensor: Tensor | None, make: Callable[[_Part, Tensor], Tensor]) -> None:
        super().__init__()
        self._tensor = None if tensor is None else tensor.detach()
        self._make = make

    def take(self, part: _Part) -> _Kept | None:
        if part not in self and self._tensor is not None:
            made = self._make(part, self._tensor)
            self[part] = _Kept(made, 0 if made.is_inference() else made._version)
        return self.get(part)

    def of(self, parts: Iterable[_Part]) -> dict[_Part, _Kept]:
        """These, without the tensor itself."""
        for part in parts:
            self.take(part)
        return dict(self)


class Capture:
    """Tensor hooks at a set of sites; nothing is in the model's path while it is not armed.

    One that nobody holds any more disarms itself. A forward pass counts only once its gradient arrives, so validation
    passes and recomputation leave nothing behind. With gradient accumulation each micro-batch gives a pair; the last
    ``MAX_PASSES`` are kept.

    ``pick`` says for each site what of its tensors is kept, all by default; ``outputs``, whether ``z`` is too. With
    ``to`` each pair is handed on by its site's name as soon as its gradient arrives, in the midst of the backward pass,
    and not kept.

    Inputs of the sites named in ``borrow`` are not copied. Where the model writes into one of them before its gradient
    comes, there is no pair, and the site's name is among ``spoilt``.
    """

    def __init__(
        self,
        model: nn.Module,
        sites: Iterable[Site],
        *,
        pick: Callable[[Site], Pick] = _pick_whole,
        outputs: bool = False,
        to: Callable[[str, Pair], None] | None = None,
        borrow: Collection[str] = (),
    ) -> None:
        self._model = model
        self.sites = tuple(sites)
        self.spoilt: set[str] = set()
        self._views = _views(self.sites, pick, borrow)
        self._outputs = outputs
        self._to = to
        self._pairs: dict[str, list[Pair]] = defaultdict(list)
        self._awaited: list[GradientEdge] = []
        self._inputs: dict[str, dict[_Part, _Kept]] = {}
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
        eager.begin()
        self._finalizer = weakref.finalize(self, _disarm, self._handles)
        views = self._views.values()
        for entry in sorted({view.site.entry for view in views if view.site.is_span}):
            parts = {view.source: None for view in views if view.site.entry == entry}
            self._hook(entry, _Hook(self._keep_input, tuple(parts), entry))
        for name in dict.fromkeys(view.site.exit for view in views):
            here = tuple(view for view in views if view.site.exit == name)
            self._hook(name, _Hook(self._watch_output, here))
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

    def awaited(self) -> list[GradientEdge]:
        """Where the passes since the last call wait for a gradient; with ``to`` only."""
        awaited, self._awaited = self._awaited, []
        return awaited

    def _hook(self, name: str, hook: _Hook) -> None:
        module = self._model.get_submodule(name)
        self._handles.append(module.register_forward_hook(hook, with_kwargs=True))

    def _end_pass(self, *_: object) -> None:
        """An exit that is called by itself later must not find an earlier pass's input."""
        self._inputs.clear()

    def _keep_input(
        self,
        parts: Sequence[_Part],
        entry: str,
        _: nn.Module,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        __: Any,
    ) -> None:
        self._inputs[entry] = _Parts(first_input(args, kwargs), _Part.safe).of(parts)

    def _watch_output(
        self, views: Sequence[_View], _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
    ) -> None:
        z = first_output(output)
        if z is None or not z.requires_grad:
            return
        read, given = _Parts(z, _Part.safe), _Parts(first_input(args, kwargs), _Part.safe)
        given.update(self._inputs.get(views[0].site.exit, {}))  # kept a moment ago, where a span begins here
        seen = []
        for view in views:
            x = self._input(view, read, given)
            if x is not None:
                value = read.take(view.target) if self._outputs else None
                seen.append((view, x, x.tensor.new_empty(0) if value is None else value.tensor))
        z.register_hook(_Hook(self._on_gradient, seen))
        if self._to is not None:
            self._awaited.append(get_gradient_edge(z))

    def _input(self, view: _View, read: _Parts, given: _Parts) -> _Kept | None:
        if view.site.attachment == "after":
            return read.take(view.source)
        if view.site.is_span:
            return self._inputs.get(view.site.entry, {}).get(view.source)
        return given.take(view.source)

    def _on_gradient(self, seen: Sequence[tuple[_View, _Kept, Tensor]], gradient: Tensor) -> None:
        read = _Parts(gradient, _Part.of)
        for view, x, z in seen:
            if x.spoilt:
                self.spoilt.add(view.site.name)
                continue
            g = read.take(view.target)
            assert g is not None
            self._give(view.site.name, Pair(x.tensor, g.tensor, z))

    def _give(self, site: str, pair: Pair) -> None:
        if self._to is not None:
            self._to(site, pair)
            return
        pairs = self._pairs[site]
        pairs.append(pair)
        del pairs[:-MAX_PASSES]
