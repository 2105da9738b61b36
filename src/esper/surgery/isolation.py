"""Runs foreign code on a model and puts everything back that the code may have moved.

Does not know what is run: a trial, a judgement, a tracing pass. Two guards live here: `isolated` puts back
what a forward pass changes by right; `unchanged` refuses what a closure must never change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from esper.errors import ClosureError
from esper.surgery.eager import eager
from esper.surgery.random_streams import Kept, random_streams

# What every module has in its ``__dict__``; the rest belongs to the author of the module.
_FRAMEWORK = frozenset(vars(nn.Module()))
_ATOMS = frozenset({bool, int, float, complex, str, bytes, type(None)})

# The ``__dict__`` of a module, and what its author put there that can change without being bound anew.
_Held = tuple[dict[str, Any], list[Any]]


@contextmanager
def isolated(model: nn.Module, *, eval_mode: bool = False) -> Iterator[None]:
    """Puts back on exit, exceptions included, all that a forward pass may change, to the bit, always.

    That is: buffers (in place, they stay the same objects); attributes of modules, whatever their type, where
    they were bound anew; the values of tensors and the items of lists, dicts and sets held as attributes;
    train/eval flags; the random streams of torch on every device in use, of ``random`` and of NumPy's global
    generator. The autocast cache is emptied before and after: a cached cast outlives a change of its weight.
    Parameters and gradients are not looked at (see `unchanged`).

    With ``eval_mode`` every module evaluates inside; flags are set directly, overridden ``train`` methods are
    not called. A compiled model runs eagerly inside, since hooks added after compilation never fire. May be
    nested.
    """
    modules = _modules_of(model)
    held = [(vars(module), _own(vars(module))) for module in modules]
    kept = [*_attributes(held), *_tensors(held), *random_streams()]
    torch.clear_autocast_cache()
    try:
        if eval_mode:
            for module in modules:
                vars(module)["training"] = False
        with _eager_stance(modules):
            yield
    finally:
        _put_back(kept)
        torch.clear_autocast_cache()


def remembered(model: nn.Module) -> Callable[[], None]:
    """What it returns puts buffers, modes and other attributes of all modules back to what they are now, to the bit."""
    held = [(vars(module), _own(vars(module))) for module in _modules_of(model)]
    return partial(_put_back, [*_attributes(held), *_tensors(held)])


@contextmanager
def unchanged(model: nn.Module) -> Iterator[None]:
    """Refuses code that changes weights: meant for the first call of a user's closure.

    Raises `ClosureError` when the code inside changed the value of a parameter, put another one in its place,
    or touched a ``.grad``. Parameters and gradients are put back to the bit first, also when the code itself
    raises. Holds a copy of all parameters and gradients meanwhile.
    """
    slots = [_Slots(name, module) for name, module in model.named_modules()]
    weights = [_Weight(name, weight) for name, weight in model.named_parameters()]
    changed: list[str] = []
    try:
        yield
    finally:
        for slot in slots:
            changed += slot.put_back()
        changed += [weight.name for weight in weights if weight.put_back()]
    if changed:
        raise ClosureError(
            f"the closure changed {_shortened(changed)}. It may only run the forward pass and return the "
            "loss: leave backward() and optimizer.step() outside of it. Everything has been put back."
        )


class _Slots:
    """Which parameter each name of one module stood for."""

    def __init__(self, name: str, module: nn.Module) -> None:
        self._prefix = f"{name}." if name else ""
        self._now: dict[str, Any] = vars(module)["_parameters"]
        self._then = dict(self._now)

    def put_back(self) -> list[str]:
        """Restores the names; those that stood for something else."""
        keys = self._now.keys() | self._then.keys()
        rebound = [key for key in keys if self._now.get(key) is not self._then.get(key)]
        _refill(self._now, self._then)
        return [self._prefix + key for key in sorted(rebound)]


class _Weight:
    """One parameter with its value and gradient as they were."""

    def __init__(self, name: str, weight: nn.Parameter) -> None:
        self.name = name
        self._weight = weight
        self._value = weight.detach().clone()
        self._grad = weight.grad
        self._grad_value = None if weight.grad is None else weight.grad.detach().clone()

    def put_back(self) -> bool:
        """Restores value and gradient; whether there was anything to restore."""
        changed = not _same_bits(self._weight, self._value) or self._weight.grad is not self._grad
        self._weight.data.copy_(self._value)
        self._weight.grad = self._grad
        if self._grad is not None and self._grad_value is not None:
            changed = changed or not _same_bits(self._grad, self._grad_value)
            self._grad.data.copy_(self._grad_value)
        return changed


def _modules_of(model: nn.Module) -> list[nn.Module]:
    """What ``model.modules()`` gives, several times faster: so the tree can be read anew at every call."""
    found, known = [model], {model}
    for module in found:
        for child in vars(module)["_modules"].values():
            if child is not None and child not in known:
                known.add(child)
                found.append(child)
    return found


def _own(attributes: dict[str, Any]) -> list[Any]:
    return [v for key, v in attributes.items() if type(v) not in _ATOMS and key not in _FRAMEWORK]


def _attributes(held: list[_Held]) -> Iterator[Kept]:
    """What every attribute and buffer name is bound to, and the items of collections held as attributes."""
    for attributes, own in held:
        yield partial(_refill, attributes), attributes.copy()
        buffers = attributes["_buffers"]
        yield partial(_refill, buffers), buffers.copy()
        for value in own:
            if type(value) in _REFILLS:
                yield partial(_REFILLS[type(value)], value), value.copy()


def _tensors(held: list[_Held]) -> Iterator[Kept]:
    """Values of buffers and of tensors held as attributes. Parameters are the optimizer's business."""
    for attributes, own in held:
        for tensor in (*attributes["_buffers"].values(), *_tensors_among(own)):
            if tensor is not None:
                # Writing through ``.data`` raises no version: a graph that the user still holds stays valid.
                memory = _memory(tensor.data)
                yield memory.copy_, memory.clone()


def _tensors_among(values: Iterable[object]) -> Iterator[Tensor]:
    """Tensors among the values and, one level down, among the items of collections; no parameters."""
    for value in values:
        if isinstance(value, Tensor):
            if not isinstance(value, nn.Parameter):
                yield value
        elif isinstance(value, (list, tuple, set)):
            yield from (item for item in value if type(item) is Tensor)
        elif isinstance(value, dict):
            yield from (item for item in value.values() if type(item) is Tensor)


def _memory(tensor: Tensor) -> Tensor:
    """A view that holds each element once: an expanded tensor refuses to be written to."""
    if 0 not in tensor.stride():
        return tensor
    return tensor[tuple(slice(1) if stride == 0 else slice(None) for stride in tensor.stride())]


def _refill(now: dict[Any, Any], then: dict[Any, Any]) -> None:
    now.update(then)
    if list(now) != list(then):
        now.clear()
        now.update(then)


def _refill_list(now: list[Any], then: list[Any]) -> None:
    now[:] = then


def _refill_set(now: set[Any], then: set[Any]) -> None:
    now.clear()
    now.update(then)


_REFILLS: dict[type, Callable[[Any, Any], None]] = {dict: _refill, list: _refill_list, set: _refill_set}


def _put_back(kept: list[Kept]) -> None:
    # An attribute may be an inference tensor, which only inference mode may write to.
    with torch.inference_mode():
        for restore, state in kept:
            restore(state)


def _eager_stance(modules: list[nn.Module]) -> AbstractContextManager[object]:
    compiled = any("_compiled_call_impl" in vars(m) or "_orig_mod" in vars(m)["_modules"] for m in modules)
    return eager.held() if compiled else nullcontext()


def _same_bits(a: Tensor, b: Tensor) -> bool:
    """Equal to the bit: NaN equals itself and 0.0 is not -0.0."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    return torch.equal(_bits(a), _bits(b))


def _bits(tensor: Tensor) -> Tensor:
    return tensor.detach().contiguous().flatten().view(torch.uint8)


def _shortened(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
