"""Ranks that share every parameter of one model between them (FSDP2). Decides nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer

from esper.growth.ranks import Many
from esper.surgery.graft import Graft


class Shards(Many):
    """Ranks that each hold a part of every parameter of a model under ``fully_shard`` (FSDP2)."""

    can_resize = False
    can_fold = False

    def __init__(self, model: nn.Module, mesh: DeviceMesh) -> None:
        super().__init__(mesh.mesh.flatten().tolist())
        self._model, self._mesh = model, mesh

    def join(self, graft: Graft, optimizer: Optimizer) -> None:
        """The graft is sharded by itself, and its optimizer state like its parameters."""
        before = list(graft.parameters())
        fully_shard(graft, mesh=self._mesh)
        now = dict(zip(before, graft.parameters(), strict=True))
        for group in optimizer.param_groups:
            group["params"][:] = [now.get(parameter, parameter) for parameter in group["params"]]
        for old, new in now.items():
            if old in optimizer.state:
                state = optimizer.state.pop(old)
                optimizer.state[new] = {name: _like(value, new) for name, value in state.items()}

    @contextmanager
    def apart(self) -> Iterator[None]:
        """Gradients stay where they are anyway; what a pass has gathered is given back."""
        try:
            yield
        finally:
            for module in self._model.modules():
                if isinstance(module, FSDPModule):
                    module.reshard()

    def _whole(self, model: nn.Module) -> Iterable[Tensor]:
        """Those that have not been sharded yet."""
        return (parameter for parameter in model.parameters() if not isinstance(parameter, DTensor))


def shards_of(model: nn.Module) -> Shards | None:
    """The ranks among which ``fully_shard`` has shared the whole of ``model``; ``None`` where it has not."""
    if not isinstance(model, FSDPModule):
        return None
    return Shards(model, next(p for p in model.parameters() if isinstance(p, DTensor)).device_mesh)


def _like(state: Any, parameter: nn.Parameter) -> Any:
    """A value of the optimizer's state, sharded as ``parameter`` is where it has its shape."""
    if not (isinstance(state, Tensor) and isinstance(parameter, DTensor) and state.shape == parameter.shape):
        return state
    return distribute_tensor(state, parameter.device_mesh, parameter.placements)
