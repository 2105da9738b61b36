"""Ranks that each hold the whole of one model (DistributedDataParallel). Decides nothing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from contextlib import AbstractContextManager

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd import Variable
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from esper.errors import ConfigurationError
from esper.growth.ranks import PATIENCE, Many, named
from esper.surgery.graft import Graft, await_own_path, grafts_of


class Replicas(Many):
    """Ranks that each hold the whole model, wrapped in ``DistributedDataParallel``.

    The wrapper does not learn of grafts: after each backward pass their gradients are averaged, all in one message over
    a group of their own. That a rank sends it hangs on any gradient of the model, not on one of a graft, and what has
    no gradient on a rank counts as zero there, so that paths which some ranks do not take hold nobody up.
    """

    can_resize = False

    def __init__(self, wrapper: DistributedDataParallel) -> None:
        if wrapper.static_graph:
            raise ConfigurationError(
                "a DistributedDataParallel with static_graph=True cannot take new parameters: leave static_graph out"
            )
        group = wrapper.process_group
        super().__init__(dist.get_process_group_ranks(group))
        self._wrapper = wrapper
        self._gradients = dist.new_group(self._members, timeout=PATIENCE, backend=dist.get_backend(group))
        self._grafts: list[Graft] = []
        self._hooks: dict[Tensor, RemovableHandle] = {}
        self._pass = -1  # the number that autograd gave to the backward pass which ends with a message

    def join(self, graft: Graft, optimizer: Optimizer) -> None:  # noqa: ARG002 - its parameters stay what they are
        """Its gradients are averaged after every backward pass, unless under ``no_sync``."""
        self._grafts.append(graft)
        if not self._wrapper.find_unused_parameters:
            await_own_path(self._model, graft.site.exit)
        for parameter in self._model.parameters():
            if parameter.requires_grad and parameter not in self._hooks:
                self._hooks[parameter] = parameter.register_post_accumulate_grad_hook(self._expect)

    def apart(self) -> AbstractContextManager[object]:
        """``no_sync`` of the wrapper."""
        silence: AbstractContextManager[object] = self._wrapper.no_sync()
        return silence

    @property
    def _model(self) -> nn.Module:
        model: nn.Module = self._wrapper.module
        return model

    def _expect(self, _: Tensor) -> None:
        """A gradient of this backward pass has arrived."""
        current = torch._C._current_graph_task_id()
        if self._wrapper.require_backward_grad_sync and current != self._pass:
            self._pass = current
            Variable._execution_engine.queue_callback(self._average)

    @torch.no_grad()
    def _average(self) -> None:
        """The backward pass has ended."""
        self._forget_detached()
        alike: dict[tuple[torch.dtype, torch.device], list[Tensor]] = defaultdict(list)
        for parameter in (p for graft in self._grafts for p in graft.parameters() if p.requires_grad):
            alike[parameter.dtype, parameter.device].append(parameter)
        for parameters in alike.values():
            self._exchange(parameters)

    def _forget_detached(self) -> None:
        live = [g for g in self._grafts if any(g is other for other in grafts_of(self._model, g.site.exit))]
        if not live:
            for handle in self._hooks.values():
                handle.remove()
            self._hooks.clear()
        self._grafts = live

    def _exchange(self, parameters: Sequence[Tensor]) -> None:
        """Average the gradients of ``parameters``; one that no rank has stays missing."""
        own = [p.grad for p in parameters]
        known = parameters[0].new_tensor([grad is not None for grad in own])
        parts = [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, own, strict=True)]
        flat = torch.cat([*(part.reshape(-1) for part in parts), known]) / self.size
        with named():
            dist.all_reduce(flat, group=self._gradients)
        *means, share = flat.split([*(p.numel() for p in parameters), len(parameters)])
        for parameter, grad, mean, seen in zip(parameters, own, means, share.tolist(), strict=True):
            if grad is not None:
                grad.copy_(mean.view_as(grad))
            elif seen:
                parameter.grad = mean.view_as(parameter).clone()


def replicas_of(wrapper: DistributedDataParallel) -> Replicas | None:
    """The ranks that hold the model in ``wrapper``; ``None`` when there is only this one.

    Raises ConfigurationError for a wrapper that cannot take new parameters.
    """
    return Replicas(wrapper) if dist.get_world_size(wrapper.process_group) > 1 else None
