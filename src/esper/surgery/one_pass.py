"""One more pass of a model, to look at what its modules are given. Does not know what is looked for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

import torch
from torch import nn


class AllSeen(BaseException):
    """Ends a pass; no handler of a user's catches it by accident."""


@contextmanager
def one_pass(model: nn.Module) -> Iterator[ExitStack]:
    """Run a pass inside: it goes without gradients, and ends with what ``model`` returns.

    What is given to the stack, such as hooks, goes when the pass ends; `AllSeen` ends it earlier.
    """
    with suppress(AllSeen), ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        stack.callback(model.register_forward_pre_hook(_without_gradients).remove)
        stack.callback(model.register_forward_hook(_stop).remove)
        yield stack


def _without_gradients(*_: object) -> None:
    """What modules are given can then be copied; whoever turned gradients on puts their mode back."""
    torch.set_grad_enabled(False)


def _stop(*_: object) -> None:
    raise AllSeen
