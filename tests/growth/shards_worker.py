"""One of two ranks, started by ``torchrun``: a sharded network in which a path has been cut, beside the whole one.

Writes the gradients of both at each of three steps into the folder named in its first argument.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from replicas_worker import Branching, graft_at
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor

from esper.growth.shards import shards_of
from esper.surgery.graft import attach, cut


def sharded(model: Branching) -> nn.Module:
    """Layer by layer."""
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    for layer in (model.trunk, model.branch):
        fully_shard(layer, mesh=mesh)
    return fully_shard(model, mesh=mesh)


def grown(model: nn.Module) -> torch.optim.Optimizer:
    """A graft beside the branch, which is cut; all of the network is in the optimizer."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    graft = graft_at("branch")
    attach(model, graft)
    optimizer.param_groups[0]["params"] += list(graft.parameters())
    if isinstance(model, FSDPModule):
        shards_of(model).join(graft, optimizer)
    cut(model, "branch")
    return optimizer


def whole(gradient: Tensor | None) -> Any:
    """As plain numbers."""
    found = gradient.full_tensor() if isinstance(gradient, DTensor) else gradient
    return None if found is None else found.tolist()


def step(model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, *, scale: float) -> Any:
    """Gradients by name."""
    optimizer.zero_grad()
    (scale * model(x, True).sum()).backward()
    found = {name: whole(p.grad) for name, p in model.named_parameters()}
    optimizer.step()
    return found


def main() -> None:
    """Rank 0 weighs its loss by 1, rank 1 by 3: the mean is that of 2."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    torch.manual_seed(0)
    model, alone = Branching(), Branching()
    alone.load_state_dict(model.state_dict())
    first, second = grown(sharded(model)), grown(alone)
    found = []
    for number in range(3):
        x = torch.full((2, 3), float(number + 1))
        parts = step(model, first, x, scale=float(1 + 2 * rank))
        found.append((parts, step(alone, second, x, scale=2.0)))
    (Path(sys.argv[1]) / f"{rank}.json").write_text(json.dumps(found))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
