"""One of two ranks, started by ``torchrun``: growth of a sharded network until it is finished, and beyond.

Each rank grows the same network whole, too, and finishes a second sharded one from the state of the first. What came
of them goes into the folder named in the first argument.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, Shard
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

from esper import Budget, Grower, Recipe
from esper.errors import ConfigurationError
from esper.growth.gathering import gathered
from growth.loops import Lenient, Script

WANTED = ("4 mlp(hidden=3)", "0..2 widen(units=3)", "0 lora(rank=2)")
RECIPES = [Recipe.of("widen", units=3), Recipe.of("lora", rank=2), Recipe.of("mlp", hidden=3)]
LIMIT = 100  # steps within which all is attached
LATER = 3  # steps after the end of growth


@dataclass(frozen=True)
class Wishes(Script):
    """Tries one thing after the other."""

    left: list[str] = field(default_factory=lambda: list(WANTED))

    def propose(self, view: Any) -> list[Any]:
        """The next one."""
        there = {candidate.name: candidate for candidate in view.candidates}
        return [there[self.left.pop(0)]] if self.left else []


def network() -> nn.Sequential:
    """The same on all ranks."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 4))


def sharded() -> nn.Module:
    """Two layers by themselves, by columns, one of them kept whole between the passes; the last one with the model."""
    net, mesh = network(), init_device_mesh("cpu", (dist.get_world_size(),))
    fully_shard(net[0], mesh=mesh, reshard_after_forward=False, shard_placement_fn=by_columns)
    fully_shard(net[2], mesh=mesh, shard_placement_fn=by_columns)
    fully_shard(net, mesh=mesh)
    return net


def by_columns(parameter: nn.Parameter) -> Shard:
    """Matrices by columns."""
    return Shard(parameter.dim() - 1)


def rows(seed: int) -> tuple[Tensor, Tensor]:
    """A global batch."""
    x = torch.randn(12, 6, generator=torch.Generator().manual_seed(seed))
    return x, x.abs().argmax(dim=1) % 4


class Run:
    """A network that grows; ``parts`` says whether this rank is given its share of each batch only."""

    def __init__(self, model: nn.Module, *, parts: bool) -> None:
        self.model, self.own = model, slice(dist.get_rank() if parts else 0, None, 2 if parts else 1)
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        x, y = (part[self.own] for part in rows(1000))
        self.grower = Grower(
            model,
            self.optimizer,
            evaluate=lambda module: F.cross_entropy(module(x), y, reduction="none"),
            recipes=RECIPES,
            controller=Wishes(num_trials=1),
            judge=Lenient(cuts=True),
            budget=Budget(params_ratio=None),
        )

    def step(self, number: int, *, growing: bool = True) -> None:
        """Train on one batch."""
        x, y = (part[self.own] for part in rows(number))
        self.optimizer.zero_grad()
        F.cross_entropy(self.model(x), y).backward()
        self.optimizer.step()
        if growing:
            self.grower.step(lambda: F.cross_entropy(self.model(x), y))

    def finished(self) -> dict[str, Any]:
        """Grown, folded and trained a little more."""
        number = 0
        while sum(op["op"] == "attach" for op in self.grower.record) < len(WANTED):
            self.step(number)
            number += 1
            assert number < LIMIT
        assert self.grower.finish() is self.model
        gradients = {name: whole(p.grad) for name, p in self.model.named_parameters()}
        folded = self.outputs()
        for later in range(LATER):
            self.step(number + later, growing=False)
        return {"gradients": gradients, "folded": folded, **self.outcome()}

    def undone(self) -> dict[str, Any]:
        """Grown and cut, put back by the guard, and trained a little more."""
        number = 0
        while not any(op["op"] == "cut" for op in self.grower.record):
            self.step(number)
            number += 1
            assert number < LIMIT
        self.grower._work.guard.undo()
        weights = {name: whole(p) for name, p in self.model.named_parameters()}
        for later in range(LATER):
            self.step(number + later, growing=False)
        return {"weights": weights, "outputs": self.outputs()}

    def outputs(self) -> Any:
        """For a batch that nobody has seen."""
        with torch.no_grad():
            found = self.model(rows(2000)[0]).tolist()
        for module in self.model.modules():
            if isinstance(module, FSDPModule):
                module.reshard()
        return found

    def outcome(self) -> dict[str, Any]:
        """What is compared."""
        outputs = self.outputs()
        named = dict(self.model.named_parameters())
        held = [p for group in self.optimizer.param_groups for p in group["params"]]
        own = {id(p): name for name, p in named.items()}
        return {
            "record": self.grower.record,
            "outputs": outputs,
            "classes": [type(module).__name__.removeprefix("FSDP") for module in self.model.modules()],
            "weights": {name: whole(p) for name, p in named.items()},
            "order": [own[id(p)] for p in held],
            "moments": {own[id(p)]: whole(self.optimizer.state[p]["exp_avg"]) for p in held},
            "ages": {own[id(p)]: float(self.optimizer.state[p]["step"]) for p in held},
        }


def whole(tensor: Tensor | None) -> Any:
    """As plain numbers."""
    found = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
    return None if found is None else found.tolist()


def shares(run: Run) -> dict[str, Any]:
    """How a sharded network is shared out."""
    return {
        "units": [name for name, module in run.model.named_modules() if isinstance(module, FSDPModule)],
        "parameters": {
            name: str(p.placements) if isinstance(p, DTensor) else "whole"
            for name, p in run.model.named_parameters()
        },
        "moments": list(
            {
                str(run.optimizer.state[p]["exp_avg"].placements) == str(p.placements)  # type: ignore[attr-defined]
                for p in run.optimizer.state
            }
        ),
        "resharded": run.model[0]._get_fsdp_state()._fsdp_param_group.post_forward_mesh_info is not None,  # type: ignore[index]
    }


def resumed(run: Run) -> dict[str, Any]:
    """A fresh sharded network with the state of one that was finished."""
    again = Run(sharded(), parts=True)
    again.grower.load_state_dict(run.grower.state_dict())
    again.model.load_state_dict(run.model.state_dict())
    again.optimizer.load_state_dict(run.optimizer.state_dict())
    return again.outcome()


def refusal() -> str:
    """What is said where tensor parallelism has cut the layers, too."""
    mesh = init_device_mesh("cpu", (1, dist.get_world_size()), mesh_dim_names=("data", "tensor"))
    net = parallelize_module(network(), mesh["tensor"], {"0": ColwiseParallel(), "2": RowwiseParallel()})
    fully_shard(net, mesh=mesh["data"])
    optimizer = torch.optim.AdamW(net.parameters())
    try:
        with gathered(net, ["0"], optimizer, agree=lambda: None):
            return ""
    except ConfigurationError as error:
        return str(error)


def main() -> None:
    """One process of the job."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    alone, run = Run(network(), parts=False), Run(sharded(), parts=True)
    found: dict[str, Any] = {"alone": alone.finished(), "before": shares(run), "sharded": run.finished()}
    found |= {"after": shares(run), "again": resumed(run), "refusal": refusal()}
    runs = Run(network(), parts=False), Run(sharded(), parts=True)
    found["undone"] = [each.undone() for each in runs]
    (Path(sys.argv[1]) / f"{dist.get_rank()}.json").write_text(json.dumps(found))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
