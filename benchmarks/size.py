"""What the size of a network costs: finding, reading and shadowing many sites; attaching to many parameters.

Times are of the processor, so that others on the machine do not count; one thread. The attachment is also timed by the
clock, and the guard's snapshot apart from it.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.command import Options, options
from benchmarks.table import Table, publish
from esper import Budget, Grower, Judge, Recipe, Rules, held_out
from esper.controller.judge import Verdict

WIDTH = 16
EXAMPLES = 64
SIZES = (10, 100, 1_000)
STEPS = 12
LARGE = 1_600  # four square layers of it are ten million parameters


class Always(Judge):
    """Accepts every graft: what is timed is the attachment."""

    def graft(self, *given: Any, **options: Any) -> Verdict:
        """The verdict, turned."""
        return replace(super().graft(*given, **options), accepted=True)

    def hopeless(self, *_: Any) -> bool:
        """Never."""
        return False


class Residual(nn.Module):
    """Blocks of two layers around a stream, in a list: each is a module of its own."""

    def __init__(self, num_layers: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH))
            for _ in range(num_layers // 2)
        )

    def forward(self, x: Tensor) -> Tensor:
        """``(B, WIDTH)`` to ``(B, WIDTH)``."""
        for block in self.blocks:
            x = x + block(x) / len(self.blocks)
        return x


def chain(num_layers: int, *, width: int = WIDTH) -> nn.Module:
    """Linear layers and rectifiers, one after the other."""
    return nn.Sequential(*(m for _ in range(num_layers) for m in (nn.Linear(width, width), nn.ReLU())))


@dataclass(frozen=True)
class Times:
    """Processor seconds: of making a Grower, and medians of one step of training, sensing and shadow."""

    finding: float
    training: float
    sensing: float
    shadow: float


def processor(work: Callable[[], object]) -> float:
    """Processor time of calling ``work`` once."""
    start = time.process_time()
    work()
    return time.process_time() - start


def batch(seed: int, width: int) -> tuple[Tensor, Tensor]:
    """Inputs, and targets in which there is something to learn, so that a graft is of use."""
    x = torch.randn(EXAMPLES, width, generator=torch.Generator().manual_seed(seed))
    return x, x.abs()


def grown_with_size(build: Callable[[int], nn.Module], num_layers: int) -> Times:
    """One candidate a layer learns in the shadow."""
    torch.manual_seed(0)
    model = build(num_layers)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    rules = Rules(
        num_shadows=num_layers, num_trials=1, survivors=1.0, start=STEPS, sense=STEPS, updates=3 * STEPS
    )
    made: list[Grower] = []

    def make() -> None:
        made.append(
            Grower(
                model,
                optimizer,
                evaluate=held_out([batch(0, WIDTH), batch(1, WIDTH)], F.mse_loss),
                controller=rules,
                recipes=[Recipe.of("mlp", ratio=1.0)],
                budget=Budget(params_ratio=None),
                sites=[name for name, m in model.named_modules() if isinstance(m, nn.Linear)],
            )
        )

    finding = processor(make)
    times: dict[str, list[float]] = defaultdict(list)
    for step in range(4 * STEPS - 2):  # the last step of a phase does more than the others
        phase = made[0].phase
        times[phase].append(processor(partial(growing_step, model, optimizer, made[0], step)))
    training = median(times["rest"][1:-1])
    return Times(finding, training, *(median(times[p][1:-1]) - training for p in ("sense", "learn")))


def growing_step(
    model: nn.Module, optimizer: torch.optim.Optimizer, grower: Grower, step: int, *, width: int = WIDTH
) -> None:
    """One step of training and of growth."""
    x, y = batch(step + 2, width)
    optimizer.zero_grad()
    F.mse_loss(model(x), y).backward()
    optimizer.step()
    grower.step(lambda: F.mse_loss(model(x), y))


class Watch:
    """Adds up clock and processor time of calls of one method."""

    def __init__(self, owner: Any, method: str) -> None:
        self.clock = self.processor = 0.0
        self._call = getattr(owner, method)
        setattr(owner, method, self)

    def __call__(self, *args: Any) -> Any:
        """Call the method."""
        clock, used = time.perf_counter(), time.process_time()
        try:
            return self._call(*args)
        finally:
            self.clock += time.perf_counter() - clock
            self.processor += time.process_time() - used


def attachment(seed: int, *, width: int) -> tuple[Watch, Watch]:
    """Times of one attachment to four layers of ``width``, and of the guard's preparation in it."""
    torch.manual_seed(seed)
    model = chain(4, width=width)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    grower = Grower(
        model,
        optimizer,
        evaluate=held_out([batch(0, width)], F.mse_loss),
        controller=Rules(num_shadows=1, num_trials=1, start=1, sense=1, updates=3, trial=2),
        judge=Always(min_examples=2),
        recipes=[Recipe.of("mlp", ratio=0.1)],
        budget=Budget(params_ratio=None),
        sites=["2"],
    )
    whole, guard = Watch(grower._work, "attach"), Watch(grower._work.guard, "before_attach")
    for step in range(20):
        growing_step(model, optimizer, grower, step, width=width)
        if whole.clock:
            return whole, guard
    raise AssertionError("nothing was attached")


def attach_cells(given: Options) -> list[list[str]]:
    """Medians over the seeds, in milliseconds by the clock and by the processor."""
    width = 64 if given.quick else LARGE
    runs = [attachment(seed, width=width) for seed in given.seeds]
    params = 4 * (width * width + width)

    def line(name: str, watches: list[tuple[float, float]]) -> list[str]:
        clock, used = (median(values) for values in zip(*watches, strict=True))
        return [f"{params:,} parameters", name, f"{1e3 * clock:.1f}", f"{1e3 * used:.1f}", "–"]

    beside = [(w.clock - g.clock, w.processor - g.processor) for w, g in runs]
    return [
        line("attachment, beside the snapshot", beside),
        line("the guard's snapshot, with a held-out evaluation", [(g.clock, g.processor) for _, g in runs]),
    ]


def size_cells(given: Options) -> list[list[str]]:
    """One line for each network and what it is measured for."""
    cells = []
    for name, build in (("chain", chain), ("residual", Residual)):
        for num_layers in (4, 12) if given.quick else SIZES:
            times = grown_with_size(build, num_layers)
            for what, seconds in vars(times).items():
                each = f"{1e6 * seconds / num_layers:.0f}"
                cells.append([f"{name}, {num_layers:,} layers", what, "–", f"{1e3 * seconds:.1f}", each])
    return cells


def table(given: Options) -> Table:
    """Measure everything."""
    return Table(
        name="size",
        title="What size costs: sites, and parameters",
        columns=["network", "what", "clock (ms)", "processor (ms)", "processor per layer (µs)"],
        cells=[*size_cells(given), *attach_cells(given)],
        notes=[
            "finding: making a Grower, all of it (five passes of held-out data, trace, sites, spans, blocks, choice)",
            f"sensing and shadow: one step of {EXAMPLES} examples, without that of training; one candidate a layer",
            f"attachment: median over {len(given.seeds)} seeds, with AdamW, to the second of four square layers",
        ],
    )


def main() -> None:
    """Measure, and publish the table."""
    given = options("size", "Costs by numbers of sites and of parameters. One process, one thread.")
    torch.set_num_threads(1)
    publish(table(given), command=given.command, stored=not given.quick)


if __name__ == "__main__":
    main()
