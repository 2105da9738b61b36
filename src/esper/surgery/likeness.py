"""Which modules are built alike: what one does with symbols all do. Does not know what is asked of them."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import Any, Generic, TypeVar

from torch import nn

Found = TypeVar("Found")

_FRAMEWORK = frozenset(vars(nn.Module()))
_ATOMS = (bool, int, float, complex, str, bytes, type(None))


class Alike(Generic[Found]):
    """Asks ``find(module, names)`` once for all modules that are built alike, and the same names in them."""

    def __init__(self, find: Callable[[nn.Module, list[str]], Found]) -> None:
        self._find = find
        self._known: dict[Hashable, Found] = {}

    def __call__(self, module: nn.Module, names: Iterable[str]) -> Found:
        """What was found for the first of them."""
        wanted = sorted(set(names))
        build = likeness(module)
        if build is None:
            return self._find(module, wanted)
        key = build, tuple(wanted)
        if key not in self._known:
            self._known[key] = self._find(module, wanted)
        return self._known[key]


def likeness(module: nn.Module) -> Hashable | None:
    """Equal for two modules that differ in nothing but the values of tensors; ``None`` where that cannot be known.

    Classes, names, modes, plain attributes, shapes and dtypes are equal, other attributes are the same objects.
    Hooks and a forward of a module's own can do anything.
    """
    parts, numbers = [], dict[int, int]()
    for name, part in module.named_modules(remove_duplicate=False):
        own = vars(part)
        if "forward" in own or any(own.get(key) for key in _FRAMEWORK if key.endswith("hooks")):
            return None
        tensors = {**part._parameters, **part._buffers}
        held = tuple((key, _of_tensor(value, numbers)) for key, value in tensors.items())
        plain = tuple((key, _of_value(value)) for key, value in own.items() if key not in _FRAMEWORK)
        parts.append(
            (name, type(part), numbers.setdefault(id(part), len(numbers)), part.training, held, plain)
        )
    return tuple(parts)


def _of_tensor(tensor: Any, numbers: dict[int, int]) -> Hashable:
    if tensor is None:
        return None
    return (
        numbers.setdefault(id(tensor), len(numbers)),
        tuple(tensor.shape),
        tensor.dtype,
        tensor.requires_grad,
    )


def _of_value(value: Any) -> Hashable:
    if isinstance(value, tuple) and type(value) is tuple:
        return tuple(map(_of_value, value))
    return (type(value), value) if type(value) in _ATOMS else id(value)
