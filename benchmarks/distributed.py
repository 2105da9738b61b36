"""What a live graft costs under DistributedDataParallel, against the same model wrapped anew with the graft inside.

Two processes on this machine take a step of the one and a step of the other in turns; only the ratio of the medians
says anything, as all of them share the same cores.
"""

from __future__ import annotations

import copy
import tempfile
import time
from pathlib import Path
from statistics import median

import msgspec
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from benchmarks.command import options
from benchmarks.networks import mlp
from benchmarks.table import Table, publish
from esper import Recipe
from esper.blueprints import build
from esper.growth.replicas import Replicas
from esper.surgery.graft import Graft, attach
from esper.surgery.site import Port, Site

RANKS, BATCH, WARM_UP = 2, 100, 20
WIDTHS = {"small": (40, 32, 32, 10), "large": (256, 1024, 1024, 10)}


def step(model: nn.Module, optimizer: torch.optim.Optimizer, x: torch.Tensor, y: torch.Tensor) -> float:
    """Seconds of one step."""
    start = time.perf_counter()
    optimizer.zero_grad()
    F.cross_entropy(model(x), y).backward()
    optimizer.step()
    return time.perf_counter() - start


def grafted(sizes: tuple[int, ...]) -> tuple[nn.Module, Graft]:
    """A network with a graft across its second layer, not yet known to any wrapper."""
    torch.manual_seed(0)
    site = Site("l2", Port("vector", sizes[1:2]), Port("vector", sizes[2:3]))
    return mlp(sizes), Graft(
        build(Recipe.of("mlp", ratio=2.0), site, seed=0), site, Recipe.of("mlp", ratio=2.0)
    )


def times(sizes: tuple[int, ...], steps: int) -> list[tuple[float, float]]:
    """Seconds of (live graft, wrapped anew), step by step."""
    net, graft = grafted(sizes)
    other = copy.deepcopy(net)
    attach(other, copy.deepcopy(graft))
    live, anew = DistributedDataParallel(net), DistributedDataParallel(other)
    attach(net, graft)
    first, second = (torch.optim.AdamW(m.parameters(), lr=1e-3) for m in (net, other))
    Replicas(live).join(graft, first)
    x, y = torch.randn(BATCH, sizes[0]), torch.randint(sizes[-1], (BATCH,))
    return [(step(live, first, x, y), step(anew, second, x, y)) for _ in range(steps)]


def rank(number: int, steps: int, folder: str) -> None:
    """One process; the first writes what it measured."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=number, world_size=RANKS)
    found = {name: times(sizes, steps) for name, sizes in WIDTHS.items()}
    if number == 0:
        (Path(folder) / "times.json").write_bytes(msgspec.json.encode(found))
    dist.destroy_process_group()


def measured(steps: int) -> dict[str, list[tuple[float, float]]]:
    """The times of both networks on the first rank."""
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(rank, args=(steps, folder), nprocs=RANKS)
        content = (Path(folder) / "times.json").read_bytes()
    return msgspec.json.decode(content, type=dict[str, list[tuple[float, float]]])


def table(found: dict[str, list[tuple[float, float]]]) -> Table:
    """Medians of both and their ratio."""
    cells = []
    for name, pairs in found.items():
        live, anew = (median(column) for column in zip(*pairs[WARM_UP:], strict=True))
        sizes = "-".join(map(str, WIDTHS[name]))
        cells.append([sizes, f"{1e3 * live:.2f}", f"{1e3 * anew:.2f}", f"{live / anew:.2f}"])
    return Table(
        name="distributed",
        title=f"A step with one live graft under DistributedDataParallel, {RANKS} gloo processes",
        columns=["network", "live graft (ms)", "wrapped anew (ms)", "ratio"],
        cells=cells,
        notes=[f"medians of {len(next(iter(found.values()))) - WARM_UP} steps, taken in turns"],
        rows=[],
    )


def main() -> None:
    """Measure, and publish the table."""
    given = options("distributed", "Step time with a live graft under DistributedDataParallel.", seeds=1)
    publish(table(measured(40 if given.quick else 400)), command=given.command, stored=not given.quick)


if __name__ == "__main__":
    main()
