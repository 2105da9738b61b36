"""Modules beside the model that a user's closure or evaluation runs too: a GAN's critic, a teacher, a loss with state.

Leaves them as they were, to the bit; does nothing else with them.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook

from esper.surgery.eager import eager
from esper.surgery.isolation import isolated


class Bystanders:
    """They are found by watching a first run, since nobody names them, and isolated in that run already."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._found: list[nn.Module] = []

    @contextmanager
    def isolated(self) -> Iterator[None]:
        """Puts back on exit what those found so far keep of a forward pass; their modes are left as they are."""
        with ExitStack() as stack:
            for module in self._found:
                stack.enter_context(isolated(module))
            yield

    @contextmanager
    def sought(self, model: nn.Module) -> Iterator[None]:
        """As `isolated`, also for those called inside for the first time; ``model`` is no bystander, nor our own."""
        # A hook on every module would have compiled code compiled again.
        with self.isolated(), eager.held(), ExitStack() as stack:
            known = {m for own in (self._model, model, *self._found) for m in own.modules()}

            def meet(module: nn.Module, _: Any) -> None:
                if module in known:
                    return
                parts = set(module.modules())
                known.update(parts)
                if not any(isinstance(part, torch.jit.ScriptModule) for part in parts):
                    self._found.append(module)
                    stack.enter_context(isolated(module))

            stack.enter_context(warnings.catch_warnings())
            # The wrapper and what it wraps are both met; it does no harm to isolate them twice.
            warnings.filterwarnings(
                "ignore", message=r"Using `torch\.compile\(module\)` when there are global hooks"
            )
            stack.callback(register_module_forward_pre_hook(meet).remove)
            yield
