"""Ranks that share every parameter of one model between them (FSDP2). Decides nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from esper.blueprints.catalogue import build
from esper.growth.gathering import full, gathered, like, read, settle, share
from esper.growth.ranks import Many
from esper.surgery.graft import Graft, all_grafts, like_host


class Shards(Many):
    """Ranks that each hold a part of every parameter of a model under ``fully_shard`` (FSDP2)."""

    can_resize = False

    def __init__(self, model: nn.Module, mesh: DeviceMesh) -> None:
        super().__init__(mesh.mesh.flatten().tolist())
        self._model, self._mesh = model, mesh
        settle(model)

    def join(self, graft: Graft, optimizer: Optimizer) -> None:
        """The graft is sharded by itself, and its optimizer state like its parameters."""
        share(graft, self._mesh, optimizer)

    @contextmanager
    def whole(self, optimizer: Optimizer) -> Iterator[None]:
        """Those layers, and what holds them, leave ``fully_shard`` meanwhile; the checksums are of what they became."""
        names = [name for path, graft in all_grafts(self._model) for name in (path, *graft.site.modules)]
        agree = partial(self.compare, self._model)
        with (
            self.together(),
            gathered(self._model, names, optimizer, agree=agree) if names else nullcontext(),
        ):
            yield

    def copied(self, graft: Graft) -> Graft:
        """A fresh one of the same recipe, with all values: a sharded module cannot be copied."""
        site, recipe = graft.site, graft.recipe
        fresh = like_host(Graft(build(recipe, site, seed=0), site, recipe), self._model)
        fresh.load_state_dict({name: full(value) for name, value in graft.state_dict().items()})
        return fresh.train(graft.training)

    @torch.no_grad()
    def refill(self, graft: Graft, other: Graft) -> None:
        """Every rank its share."""
        for own, value in zip(graft.parameters(), other.parameters(), strict=True):
            own.copy_(like(value.detach(), own))
        for kept, found in zip(graft.buffers(), other.buffers(), strict=True):
            kept.copy_(found)

    def share_of(self, state: dict[str, Any], parameter: nn.Parameter) -> dict[str, Any]:
        """That of the parameter."""
        return {name: like(value, parameter) for name, value in state.items()}

    def read(self, parameters: Sequence[Tensor]) -> Sequence[Tensor]:
        """What was gathered of them."""
        return read(self._model, parameters)

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


def shards_of(model: nn.Module) -> Shards:
    """The ranks among which ``fully_shard`` has shared the whole of ``model``."""
    return Shards(model, next(p for p in model.parameters() if isinstance(p, DTensor)).device_mesh)
