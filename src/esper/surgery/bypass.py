"""Leaves out a module that only adds to a residual stream. Does not know why it goes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from esper.surgery.graft import all_grafts
from esper.surgery.names import above


@contextmanager
def bypassed(model: nn.Module, name: str) -> Iterator[None]:
    """Inside the context module ``name`` gives back what it is given."""
    handle = model.get_submodule(name).register_forward_hook(_give_back)
    try:
        yield
    finally:
        handle.remove()


def bypass(model: nn.Module, name: str) -> list[nn.Parameter]:
    """Put ``nn.Identity`` in the place of a module; those of its parameters that nothing else holds, which are gone."""
    module = model.get_submodule(name)
    for holder in list(model.modules()):
        children = holder._modules
        children.update({own: nn.Identity() for own, child in children.items() if child is module})
    left = {id(parameter) for parameter in model.parameters()}
    return [parameter for parameter in module.parameters() if id(parameter) not in left]


def can_bypass(model: nn.Module, name: str) -> bool:
    """Whether no graft and no hook of a user's would go with a module, or lose what it reads."""
    inside = [
        part for part in model.get_submodule(name).modules() if part._forward_hooks or part._forward_pre_hooks
    ]
    ends = {end for _, graft in all_grafts(model) for end in (graft.site.entry, graft.site.exit)}
    return not inside and not any(name in (end, *above(end)) for end in ends)


class Form:
    """Watches how a module is called: ``simple`` if always with one tensor alone, for one tensor of the same shape."""

    def __init__(self) -> None:
        self.simple = True

    @contextmanager
    def watching(self, model: nn.Module, name: str) -> Iterator[None]:
        """Looks at the calls inside the context."""
        handle = model.get_submodule(name).register_forward_hook(self._see, with_kwargs=True)
        try:
            yield
        finally:
            handle.remove()

    def _see(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        tensors = len(args) == 1 and not kwargs and isinstance(args[0], Tensor) and isinstance(output, Tensor)
        self.simple = self.simple and tensors and args[0].shape == output.shape


def _give_back(_: nn.Module, args: tuple[Any, ...], __: Any) -> Any:
    return args[0]
