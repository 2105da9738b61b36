"""Notices whose parameters are read, and by whom. Does not know why that matters."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import nn


class _Watched(dict[str, Any]):
    """The parameters of a module, which tell when one of them is asked for."""

    def __init__(self, own: dict[str, Any], tell: Callable[[], object]) -> None:
        super().__init__(own)
        self._tell = tell

    def __getitem__(self, name: str) -> Any:
        self._tell()
        return super().__getitem__(name)

    def __reduce__(self) -> tuple[type[dict[str, Any]], tuple[dict[str, Any]]]:
        return dict, (dict(self),)


@contextmanager
def watched(model: nn.Module, tell: Callable[[str], object]) -> Iterator[None]:
    """Calls ``tell(module)`` whenever a parameter is read as an attribute of the module of that name."""
    kept = [(module, module._parameters, name) for name, module in model.named_modules()]
    for module, own, name in kept:
        vars(module)["_parameters"] = _Watched(own, partial(tell, name))
    try:
        yield
    finally:
        for module, own, _ in kept:
            now = dict(module._parameters)
            own.clear()
            own.update(now)
            vars(module)["_parameters"] = own


class Readers:
    """Keeps the names of modules of which a parameter was read while they were not at work."""

    def __init__(self) -> None:
        self.exposed: set[str] = set()
        self._at_work: list[str] = []

    def begin(self, name: str, *_: object) -> None:
        """The call of a module begins."""
        self._at_work.append(name)

    def end(self, name: str) -> None:
        """It ends, and with it those inside of it that ended by an exception."""
        while self._at_work.pop() != name:
            pass

    def read(self, name: str) -> None:
        """A parameter of that module was read."""
        while name:
            if name not in self._at_work:
                self.exposed.add(name)
            name = name.rpartition(".")[0]
