"""One rank of a distributed run, started by ``torchrun``: trains a narrow network on its share of every global batch.

Its first argument is a list of orders as JSON, done one after the other; of each rank 0 writes what came out into a
folder.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

import esper
from esper.events import Attached, Refused, Scored
from esper.growth import checkpoint

BATCH, NUM_BATCHES, NUM_HELD_OUT = 60, 20, 240
RULES = esper.Rules(updates=30, trial=30, sense=4, rest_steps=10, num_shadows=6, stop_after=2)
RECIPES = [esper.Recipe.of("mlp", hidden=24)]


@dataclass(frozen=True)
class Orders:
    """What a test wants of one run.

    Where to write, how many steps, after how many to write a checkpoint, from whose checkpoint to go on, which rank is
    to fail and how, and how the model is trained.
    """

    folder: str
    steps: int = 180
    save_at: int = 0
    resume: str = ""
    failing: int = -1
    failure: str = ""
    fail_at: int = 0
    shared: bool = False
    accumulate: int = 1
    unused: bool = True
    sharded: bool = False


def network() -> nn.Sequential:
    """Narrow in the middle."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2), nn.ReLU(), nn.Linear(2, 4))


def rows(num: int, seed: int) -> tuple[Tensor, Tensor]:
    """Inputs labelled by a wider network."""
    teacher = torch.Generator().manual_seed(99)
    first, second = torch.randn(8, 32, generator=teacher), torch.randn(32, 4, generator=teacher)
    x = torch.randn(num, 8, generator=torch.Generator().manual_seed(seed))
    return x, (torch.relu(x @ first) @ second).argmax(dim=1)


class Fault:
    """Of one rank: its evaluation raises, or its process is killed, once it is armed."""

    def __init__(self, orders: Orders, rank: int) -> None:
        self.orders, self.mine, self.armed = orders, orders.failing == rank, False

    def strike(self) -> None:
        if not (self.mine and self.armed):
            return
        if self.orders.failure == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        raise ValueError("this rank has lost its disk")


def place() -> tuple[int, int]:
    """This rank and their number."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def run(orders: Orders) -> dict[str, Any] | None:
    """Train, and return what came out on rank 0."""
    rank, size = place()
    net = network()
    model = wrapped(net, orders, size)
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3)
    fault = Fault(orders, rank)
    x, y = rows(NUM_HELD_OUT, 1)
    if not orders.shared:
        x, y = x[rank::size], y[rank::size]

    def evaluate(module: nn.Module) -> Tensor:
        fault.strike()
        return F.cross_entropy(module(x), y, reduction="none")

    grower = esper.Grower(model, optimizer, evaluate=evaluate, recipes=RECIPES, controller=RULES)
    start = 0
    if orders.resume:
        state = checkpoint.read(Path(orders.resume) / "state")
        grower.load_state_dict(state["grower"])
        net.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        start = state["step"]
    losses = []
    for step in range(start, orders.steps):
        fault.armed = step >= orders.fail_at
        losses.append(one_step(model, optimizer, grower, step, orders, rank, size))
        if step + 1 == orders.save_at and rank == 0:
            state = {
                "step": step + 1,
                "grower": grower.state_dict(),
                "model": net.state_dict(),
                "optimizer": optimizer.state_dict(),
            }
            checkpoint.write(Path(orders.folder) / "state", state)
    record, history = grower.record, grower.history
    finished = gathered(net, grower) if orders.sharded else grower.finish()
    return None if rank else outcome(finished, record, history, losses)


def wrapped(net: nn.Sequential, orders: Orders, size: int) -> nn.Module:
    """For one process as it is, for several replicated or sharded."""
    if size == 1:
        return net
    if not orders.sharded:
        return DistributedDataParallel(net, find_unused_parameters=orders.unused)
    mesh = init_device_mesh("cpu", (size,))
    for layer in (net[0], net[2], net[4]):
        fully_shard(layer, mesh=mesh)
    return fully_shard(net, mesh=mesh)


def gathered(net: nn.Module, grower: esper.Grower) -> nn.Module:
    """The sharded model in one process, folded there."""
    whole = get_model_state_dict(net, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    plain = network()
    if dist.get_rank():
        return plain
    held = rows(NUM_HELD_OUT, 1)
    again = esper.Grower(
        plain,
        torch.optim.AdamW(plain.parameters()),
        evaluate=lambda module: F.cross_entropy(module(held[0]), held[1], reduction="none"),
        recipes=RECIPES,
        controller=RULES,
    )
    again.load_state_dict(grower.state_dict())
    plain.load_state_dict(whole)
    return again.finish()


def one_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    grower: esper.Grower,
    step: int,
    orders: Orders,
    rank: int,
    size: int,
) -> float:
    """This rank's share of one global batch, in one backward pass or several."""
    x, y = rows(BATCH, 100 + step % NUM_BATCHES)
    x, y = x[rank::size], y[rank::size]
    *earlier, last = zip(x.chunk(orders.accumulate), y.chunk(orders.accumulate), strict=True)
    optimizer.zero_grad()
    for part in earlier:
        assert isinstance(model, DistributedDataParallel)
        with model.no_sync():
            (loss_of(model, *part) / orders.accumulate).backward()
    loss = loss_of(model, *last) / orders.accumulate
    loss.backward()
    optimizer.step()
    grower.step(lambda: loss_of(model, *last))
    total = loss.detach().clone()
    if size > 1:
        dist.all_reduce(total)
    return float(total) / size


def loss_of(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Mean loss of some rows."""
    return F.cross_entropy(model(x), y)


def outcome(model: nn.Module, record: Any, history: Any, losses: list[float]) -> dict[str, Any]:
    """What the test compares."""
    x, y = rows(400, 2)
    return {
        "attached": [(e.candidate, e.step) for e in history if isinstance(e, Attached)],
        "refused": [(e.candidate, e.step) for e in history if isinstance(e, Refused)],
        "scores": [[(s.candidate, s.gain, s.r2) for s in e.scores] for e in history if isinstance(e, Scored)],
        "record": [op["op"] for op in record],
        "losses": losses,
        "test": F.cross_entropy(model(x), y, reduction="none").tolist(),
    }


def main() -> None:
    """One process of the job."""
    warnings.simplefilter("error", UserWarning)
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    for orders in json.loads(sys.argv[1]):
        found = run(Orders(**orders))
        if found is not None:
            (Path(orders["folder"]) / "outcome.json").write_text(json.dumps(found))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
