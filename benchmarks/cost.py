"""What growing costs: step times by phase, and a whole growing run against its own final net trained alone.

Times are taken in turns: every step of the growing model is followed by a step of a twin that does not grow, on the
same batch, and only medians and ratios of the two are shown. One thread; run it on a quiet machine.
"""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from statistics import mean, median

import torch
from torch._dynamo.utils import counters

from benchmarks.arms import (
    Build,
    Plan,
    Session,
    Trained,
    batches,
    grow,
    loss_of,
    prepared,
    train,
    training_step,
)
from benchmarks.command import Options, options
from benchmarks.data import Split, Task, fashion, mnist1d
from benchmarks.growers import VECTOR_RECIPES, grower
from benchmarks.meter import PeakMemory
from benchmarks.networks import image_cnn, mlp, reinitialised
from benchmarks.table import Table, publish
from esper import Grower, Recipe, Rules
from esper.events import Scored
from esper.surgery.capture import Capture

WARM_UP = 20
DORMANT_STEPS = 200
MEMORY_STEPS = 400
Times = dict[str, list[tuple[float, float]]]


@dataclass(frozen=True)
class Host:
    """A network, its task and the recipes that are offered to it; of one that is ``whole`` runs are measured, too."""

    name: str
    build: Build
    task: Task
    plan: Plan
    recipes: tuple[Recipe, ...] | None
    whole: bool = False

    @property
    def dormant_steps(self) -> int:
        """Steps before the first round."""
        return min(DORMANT_STEPS, self.plan.steps // 8)

    def growing(self, rules: Rules) -> Callable[[Session], Grower]:
        """Its Grower under ``rules``."""
        return partial(grower, recipes=self.recipes, controller=rules)

    def session(self, *, build: Build | None = None) -> Session:
        """Model, optimizer and schedule under seed 0."""
        torch.manual_seed(0)
        return prepared((build or self.build)(), self.task.split, self.plan, 0)


def hosts(given: Options) -> list[Host]:
    """The MLP of MNIST-1D and a small batch-norm CNN on 28×28 images, with what their own runs are offered.

    Then the same MLP with grafts of one size each, and CNNs whose step is not mostly overhead: grafts cost what they
    cost, so a ratio to the host says as much of the two sizes as of the way to train them. The last one's grafts have
    about a third of its multiply-adds.
    """
    steps = DORMANT_STEPS + 40 if given.quick else 6_000
    vectors = partial(Host, build=partial(mlp, (40, 32, 32, 10)), task=mnist1d(given.data), plan=Plan(steps))
    grown = vectors(name="MLP 32", recipes=VECTOR_RECIPES, whole=True)
    if given.quick:
        return [grown]
    images = partial(Host, task=fashion(given.data), plan=Plan(3_000, batch=64), recipes=None)
    return [
        grown,
        vectors(name="MLP 32, 64 units a graft", recipes=_two("mlp", "hidden", 64)),
        vectors(name="MLP 32, 25 channels a graft", recipes=_two("conv1d", "channels", 25)),
        images(name="CNN 8×2", build=partial(image_cnn, 8), whole=True),
        images(name="CNN 24×2", build=partial(image_cnn, 24)),
        replace(
            images(name="CNN 40×2, 16 channels a graft", build=partial(image_cnn, 40)),
            recipes=_two("conv2d", "channels", 16),
        ),
    ]


def _two(blueprint: str, option: str, size: int) -> tuple[Recipe, ...]:
    """Two recipes of nearly the same size, so that there are eight candidates at few sites."""
    return tuple(Recipe.of(blueprint, **{option: width}) for width in (size, size - 1))


def seconds(work: Callable[[], object]) -> float:
    """Wall time of calling ``work`` once."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def phase_times(host: Host) -> tuple[Times, Trained]:
    """Seconds of (growing step, twin's step) by phase, until the first round has ended; and the grown model."""
    growing, twin = host.session(), host.session()
    grown = host.growing(Rules(num_shadows=8, num_trials=2, start=host.dormant_steps))(growing)
    times: Times = defaultdict(list)
    for x, y in batches(host.task.split.train, host.plan, 0):
        phase = grown.phase
        if phase not in ("sense", "learn", "try") and "learn" in times:
            break
        pair = (
            seconds(partial(growing_step, growing, grown, x, y)),
            seconds(partial(training_step, twin, x, y)),
        )
        times[phase].append(pair)
    return times, Trained(grown.finish(), 0, 0.0, grown)


def growing_step(session: Session, grown: Grower, x: torch.Tensor, y: torch.Tensor) -> None:
    """One step of training and of growth."""
    training_step(session, x, y)
    grown.step(partial(loss_of, session.model, x, y))


def final_times(host: Host, trained: Trained) -> list[tuple[float, float]]:
    """Seconds of (final net's step, twin's step)."""
    final, twin = host.session(build=partial(reinitialised, trained.model)), host.session()
    plan = replace(host.plan, steps=DORMANT_STEPS)
    return [
        (seconds(partial(training_step, final, x, y)), seconds(partial(training_step, twin, x, y)))
        for x, y in batches(host.task.split.train, plan, 0)
    ]


def one_site_times(host: Host) -> list[tuple[float, float]]:
    """Seconds of (step with one site read, twin's step), nothing being made of what is read."""
    read, twin = host.session(), host.session()
    site = host.growing(Rules())(host.session()).sites().sites[0]
    capture = Capture(read.model, [site])
    capture.arm()
    pairs = []
    for x, y in batches(host.task.split.train, replace(host.plan, steps=DORMANT_STEPS), 0):
        pairs.append(
            (seconds(partial(training_step, read, x, y)), seconds(partial(training_step, twin, x, y)))
        )
        capture.take()
    return pairs


def phase_cells(host: Host) -> tuple[list[list[str]], str]:
    """Step-time ratios of one host by phase, against the host and against the final net; and what was on trial."""
    times, trained = phase_times(host)
    final = ratio(final_times(host, trained)[WARM_UP:])
    eight, fewer = split_learning(times.get("learn", []))
    phases = {
        "dormant": times.get("rest", [])[WARM_UP : host.dormant_steps],
        "sensing, all sites": times.get("sense", []),
        "reading one site": one_site_times(host)[WARM_UP:],
        "shadow, 8 candidates": eight,
        "shadow, after halving": fewer,
        f"trial, {len(shares_on_trial(trained))} candidates": times.get("try", []),
    }
    cells = [phase_line(host.name, phase, pairs, final) for phase, pairs in phases.items() if pairs]
    cells.append([host.name, "final net", "–", f"{final:.2f}", "1.00"])
    shares = ", ".join(f"{share:.2f}" for share in shares_on_trial(trained))
    return cells, f"{host.name}, multiply-adds over the host's of what went to trial: {shares or '–'}"


def shares_on_trial(trained: Trained) -> list[float]:
    """Multiply-adds of each candidate of the first trial over those of the host."""
    assert trained.grower is not None
    scored = next((event for event in trained.grower.history if isinstance(event, Scored)), None)
    if scored is None:
        return []
    host = trained.grower.sites().macs
    return [score.macs / host for score in scored.scores if score.candidate in scored.chosen]


def split_learning(
    pairs: list[tuple[float, float]],
) -> tuple[list[tuple[float, float]], list[tuple[float, float]]]:
    """The shadow steps of a first round before and after candidates were dropped; the two scoring steps left out."""
    third = Rules().updates // 3
    return pairs[: third - 1], pairs[third + 1 : Rules().updates - 1]


def phase_line(host: str, phase: str, pairs: list[tuple[float, float]], final: float) -> list[str]:
    """One line of the table of phases."""
    milliseconds = 1_000 * median(first for first, _ in pairs)
    against_host = ratio(pairs)
    return [host, phase, f"{milliseconds:.2f}", f"{against_host:.2f}", f"{against_host / final:.2f}"]


def ratio(pairs: list[tuple[float, float]]) -> float:
    """Ratio of the medians."""
    return median(first for first, _ in pairs) / median(second for _, second in pairs)


def whole_run(host: Host, seed: int) -> tuple[float, float, float]:
    """Growing run over its final net trained the same steps: FLOPs, wall seconds, peak bytes of tensors.

    Memory has its peak in one step of one phase, so that a short run with every phase in it shows it.
    """
    split, growing = host.task.split, host.growing(Rules())
    short = replace(host.plan, steps=min(host.plan.steps, MEMORY_STEPS))
    told(f"{host.name}, seed {seed}: growing, and its final net alone")
    grown = grow(host.build, split, host.plan, seed, growing=growing)
    final = partial(reinitialised, grown.model)
    alone = train(final, split, host.plan, seed)
    told(f"{host.name}, seed {seed}: growing again, every operation counted")
    counted = grow(host.build, split, host.plan, seed, growing=growing, counted=True)
    told(f"{host.name}, seed {seed}: growing for {short.steps} steps, every tensor followed")
    memory = peak(split, lambda: grow(host.build, split, short, seed, growing=growing))
    memory_alone = peak(split, lambda: train(final, split, replace(host.plan, steps=10), seed))
    return counted.flops / alone.flops, grown.seconds / alone.seconds, memory / memory_alone


def told(text: str) -> None:
    """What is going on, for whoever waits."""
    print(text, file=sys.stderr, flush=True)


def peak(split: Split, work: Callable[[], object]) -> int:
    """Most bytes of tensors alive at once among those that ``work`` makes; the data are not among them."""
    memory = PeakMemory([t for rows in (split.train, split.held_out) for t in (rows.x, rows.y)])
    with memory:
        work()
    return memory.peak


def run_cells(host: Host, seeds: range) -> list[list[str]]:
    """Means over the seeds."""
    runs = [whole_run(host, seed) for seed in seeds]
    names = ("FLOPs", "wall time", "peak memory of tensors")
    return [
        [host.name, f"whole run: {name}", "–", "–", f"{mean(values):.2f}"]
        for name, values in zip(names, zip(*runs, strict=True), strict=True)
    ]


def dormant_note(host: Host) -> str:
    """Whether a dormant Grower changes the modules in the path, or what ``torch.compile`` has compiled."""
    session = host.session()
    before = dict(session.model.named_modules())
    compiled = torch.compile(session.model, backend="eager")
    batch = host.task.split.train.part(0, host.plan.batch)
    compiled(batch.x)
    graphs = counters["stats"]["unique_graphs"]
    grown = host.growing(Rules(start=DORMANT_STEPS))(session)
    for _ in range(10):
        loss_of(compiled, batch.x, batch.y).backward()
        grown.step(partial(loss_of, session.model, batch.x, batch.y))
    same = all(before[name] is module for name, module in session.model.named_modules())
    hooks = sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in before.values())
    recompiled = counters["stats"]["unique_graphs"] - graphs
    return f"{host.name}, dormant: same module objects: {same}; hooks: {hooks}; recompilations: {recompiled}"


def table(given: Options) -> Table:
    """Measure everything."""
    cells, notes = [], []
    for host in hosts(given):
        told(f"{host.name}: the phases of one round")
        phases, tried = phase_cells(host)
        cells += phases
        notes.append(tried)
        if host.whole:
            cells += run_cells(host, given.seeds)
            notes.append(dormant_note(host))
    return Table(
        name="cost",
        title="What growing costs, one thread, against the host and against the final net",
        columns=["host", "phase", "step (ms)", "× host", "× final net"],
        cells=cells,
        notes=[
            *notes,
            "throw-away prototype, host = 1: reading one site 1.13 (MLP) and 1.02 (CNN of 15 ms a step); "
            "shadow of 8 with 64 units 7.4, with 25 channels 45, CNN 3.7; 2 trials 4.5, 17.0, CNN 2.5 (one 1.71)",
            "a trial step is a host step, a second forward pass of it (a third of one), forward and backward pass of "
            "the graft, and the backward pass of the host's layers after it",
            f"whole runs: mean over {len(given.seeds)} seeds; peak memory in runs of {MEMORY_STEPS} steps",
        ],
    )


def main() -> None:
    """Measure, and publish the table."""
    given = options(
        "cost", "Step times by phase, and whole runs. Always runs in one process, one thread.", seeds=1
    )
    torch.set_num_threads(1)
    publish(table(given), command=given.command, stored=not given.quick)


if __name__ == "__main__":
    main()
