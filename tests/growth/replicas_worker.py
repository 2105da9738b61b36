"""One of two ranks, started by ``torchrun``: steps of a wrapped network in which a live graft is used or not.

Writes its gradients, and the number of messages that a backward pass cost, into the folder named in its first argument.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from esper import Recipe
from esper.blueprints import build
from esper.growth.replicas import Replicas
from esper.surgery.graft import Graft, attach, cut, detach
from esper.surgery.site import Port, Site


class Branching(nn.Module):
    """A part that a batch may leave out."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk, self.branch = nn.Linear(3, 3), nn.Linear(3, 3)

    def forward(self, x: Tensor, branching: bool) -> Tensor:
        """``(B, 3)`` to ``(B, 3)``."""
        hidden: Tensor = self.trunk(x)
        return hidden + self.branch(hidden) if branching else hidden


def graft_at(name: str) -> Graft:
    """With nothing at zero, so that all of it has gradients."""
    site, recipe = Site(name, Port("vector", (3,)), Port("vector", (3,))), Recipe.of("mlp", hidden=2)
    graft = Graft(build(recipe, site, seed=0), site, recipe)
    with torch.no_grad():
        for parameter in graft.parameters():
            parameter.fill_(0.5)
    return graft


class Counted:
    """Gradient messages of our own; those of the wrapper do not come by here."""

    def __init__(self) -> None:
        self.number = 0
        self._send = dist.all_reduce
        dist.all_reduce = self  # type: ignore[assignment]

    def __call__(self, tensor: Tensor, **options: Any) -> object:
        """Pass it on."""
        self.number += 1
        return self._send(tensor, **options)


def one_pass(model: nn.Module, graft: Graft, counted: Counted, branching: bool, *, scale: float) -> Any:
    """The number of messages, and the graft's gradients."""
    for parameter in (*model.parameters(), *graft.parameters()):
        parameter.grad = None
    counted.number = 0
    (scale * model(torch.ones(2, 3), branching).sum()).backward()
    return [counted.number, [None if p.grad is None else p.grad.tolist() for p in graft.parameters()]]


def gradients(model: nn.Module, called: nn.Module, *, scale: float) -> Any:
    """Of ``model``, by name, after the third of three passes of ``called``."""
    for _ in range(3):
        for parameter in model.parameters():
            parameter.grad = None
        (scale * called(torch.ones(2, 3), True).sum()).backward()
    return {name: None if p.grad is None else p.grad.tolist() for name, p in model.named_parameters()}


def after_a_cut(scale: float) -> Any:
    """Gradients where the branch was cut: under a wrapper that waits for all of them, and of the mean loss alone."""
    torch.manual_seed(0)
    model, alone = Branching(), Branching()
    alone.load_state_dict(model.state_dict())
    wrapper = DistributedDataParallel(model)
    graft = graft_at("branch")
    attach(model, graft)
    Replicas(wrapper).join(graft, torch.optim.SGD(model.parameters(), lr=0.1))
    attach(alone, graft_at("branch"))
    cut(model, "branch")
    cut(alone, "branch")
    return gradients(model, wrapper, scale=scale), gradients(alone, alone, scale=2.0)


def main() -> None:
    """Rank 0 weighs its loss by 1, rank 1 by 3: the mean is that of 2."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    torch.manual_seed(0)
    model = Branching()
    wrapper = DistributedDataParallel(model, find_unused_parameters=True)
    replicas, optimizer = Replicas(wrapper), torch.optim.SGD(model.parameters(), lr=0.1)
    grafts = [graft_at("branch"), graft_at("trunk")]
    for graft in grafts:
        attach(model, graft)
        replicas.join(graft, optimizer)
    counted, scale = Counted(), float(1 + 2 * rank)

    def run(branching: bool, quiet: Callable[[], Any] = nullcontext) -> Any:
        with quiet():
            return one_pass(wrapper, grafts[0], counted, branching, scale=scale)

    found = {
        "alone": one_pass(model, grafts[0], counted, True, scale=2.0)[1],
        "all": run(True),
        "first": run(rank == 0),
        "none": run(False),
        "quiet": run(True, wrapper.no_sync),
    }
    detach(model, grafts[0])
    found["detached"] = run(True)
    detach(model, grafts[1])
    found["bare"] = run(True)
    found["hooks"] = sum(len(p._post_accumulate_grad_hooks or ()) for p in model.parameters())  # type: ignore[attr-defined]
    found["cut"] = after_a_cut(scale)
    (Path(sys.argv[1]) / f"{rank}.json").write_text(json.dumps(found))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
