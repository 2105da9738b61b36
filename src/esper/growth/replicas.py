"""Ranks that each hold the whole of one model (DistributedDataParallel). Decides nothing."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from esper.errors import ConfigurationError
from esper.growth.ranks import PATIENCE, Many, named


class Replicas(Many):
    """Ranks that each hold the whole model, wrapped in ``DistributedDataParallel``.

    The wrapper does not learn of grafts: their gradients are averaged by hooks of their own, over a group of their own.
    """

    can_resize = False
    can_fold = True

    def __init__(self, wrapper: DistributedDataParallel) -> None:
        if wrapper.static_graph:
            raise ConfigurationError(
                "a DistributedDataParallel with static_graph=True cannot take new parameters: leave static_graph out"
            )
        group = wrapper.process_group
        super().__init__(dist.get_process_group_ranks(group))
        self._wrapper = wrapper
        self._gradients = dist.new_group(self._members, timeout=PATIENCE, backend=dist.get_backend(group))
        self.can_drop = wrapper.find_unused_parameters

    def join(self, graft: nn.Module, optimizer: Optimizer) -> None:  # noqa: ARG002 - its parameters stay what they are
        """A hook on every parameter averages its gradient as soon as it is there, unless under ``no_sync``."""
        for parameter in graft.parameters():
            parameter.register_post_accumulate_grad_hook(self._average)

    def apart(self) -> AbstractContextManager[object]:
        """``no_sync`` of the wrapper."""
        silence: AbstractContextManager[object] = self._wrapper.no_sync()
        return silence

    def _average(self, parameter: Tensor) -> None:
        if self._wrapper.require_backward_grad_sync and parameter.grad is not None:
            with named():
                dist.all_reduce(parameter.grad, group=self._gradients)
            parameter.grad /= self.size


def replicas_of(wrapper: DistributedDataParallel) -> Replicas | None:
    """The ranks that hold the model in ``wrapper``; ``None`` when there is only this one.

    Raises ConfigurationError for a wrapper that cannot take new parameters.
    """
    return Replicas(wrapper) if dist.get_world_size(wrapper.process_group) > 1 else None
