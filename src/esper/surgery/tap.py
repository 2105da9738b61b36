"""How the input of a span's entry reaches the graft at its exit, within one forward pass. Knows no graft."""

from __future__ import annotations

from functools import partial
from typing import Any, Self

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from esper.errors import SiteError
from esper.surgery.structure import first_input

_READING = "graft_taps"
_PASSING = "graft_taps_of_model"


class Tap:
    """Holds a tensor in flight. Copies are empty: it belongs to the pass that made it."""

    def __init__(self) -> None:
        self.value: Tensor | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        fresh = type(self)()
        memo[id(self)] = fresh
        return fresh

    def __getstate__(self) -> dict[str, Any]:
        return {"value": None}

    def take(self) -> Tensor:
        """The entry's input; the tap is empty afterwards. Raises SiteError when the entry was not called."""
        value, self.value = self.value, None
        if value is None:
            raise SiteError(
                "the exit of a span was called, or computed again under checkpointing, without its entry; "
                "restrict growth with sites=[...]"
            )
        return value

    def empty(self) -> None:
        """Forget the tensor of a pass that never reached the exit: it may hold on to a whole graph."""
        self.value = None

    def beside(self, entry: nn.Module) -> RemovableHandle:
        """Read the input of ``entry`` until the handle is removed."""
        return entry.register_forward_pre_hook(partial(_fill, [self]), with_kwargs=True)


class Taps:
    """Taps that share one hook of a module."""

    def __init__(self) -> None:
        self.taps: list[Tap] = []
        self.handle: RemovableHandle | None = None


def add_tap(model: nn.Module, entry: nn.Module, tap: Tap) -> None:
    """From now on ``tap`` reads the input of ``entry``, and is empty after each pass of ``model``."""
    reading, passing = _taps_of(entry, _READING), _taps_of(model, _PASSING)
    if reading.handle is None:
        reading.handle = entry.register_forward_pre_hook(_run_taps, with_kwargs=True)
    if passing.handle is None:
        passing.handle = model.register_forward_hook(_empty_taps)
    reading.taps.append(tap)
    passing.taps.append(tap)


def remove_tap(model: nn.Module, entry: nn.Module, tap: Tap) -> None:
    """Undo `add_tap`; where no tap is left, no hook is."""
    for module, kind in ((entry, _READING), (model, _PASSING)):
        taps: Taps = module.__dict__[kind]
        taps.taps = [other for other in taps.taps if other is not tap]
        if not taps.taps:
            if taps.handle is not None:
                taps.handle.remove()
            del module.__dict__[kind]


def hooks_of_taps(module: nn.Module) -> set[int]:
    """Numbers of the hooks that taps have at ``module``."""
    taps = (module.__dict__.get(kind) for kind in (_READING, _PASSING))
    return {own.handle.id for own in taps if own is not None and own.handle is not None}


def _taps_of(module: nn.Module, kind: str) -> Taps:
    taps: Taps = module.__dict__.setdefault(kind, Taps())
    return taps


def _run_taps(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    _fill(module.__dict__[_READING].taps, module, args, kwargs)


def _empty_taps(module: nn.Module, *_: object) -> None:
    for tap in module.__dict__[_PASSING].taps:
        tap.empty()


def _fill(taps: list[Tap], module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:  # noqa: ARG001
    x = first_input(args, kwargs)
    for tap in taps:
        tap.value = x
