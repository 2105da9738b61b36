"""One small task per blueprint, on which it should win and no other: what each recipe is in the catalogue for.

Each task is a teacher between two ports. The host is one linear map of the width; beside it grafts of every
default recipe that fits are trained with it, one at a time, on the same data and for about the same
multiply-adds. A blueprint wins a task when its test error is the lowest of all on every seed.

The tasks were made to show each blueprint at its best, after looking at earlier results: a list of uses, not a
ranking. With a third of the steps conv1d, gru and ffn did not win, on tasks of which two were replaced since.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.command import Options, options
from benchmarks.table import Table, publish
from esper.blueprints import DEFAULT_RECIPES, build, cost, fits
from esper.blueprints.layers import pointwise
from esper.recipe import Recipe
from esper.surgery.site import Port, Site

BATCH = 64
NUM_TEST = 1_000
NOISE = 0.05
HOST = Recipe.of("host")

Generator = torch.Generator
Teacher = Callable[[Generator], Callable[[Tensor], Tensor]]


@dataclass(frozen=True)
class Task:
    """``teacher`` draws its fixed weights from a generator; ``wins`` names the blueprint that should win."""

    wins: str
    what: str
    source: Port
    target: Port
    teacher: Teacher
    inputs: Callable[[tuple[int, ...], Generator], Tensor]
    num_train: int = 2_000

    @property
    def site(self) -> Site:
        """The one place of the host."""
        return Site("host", source=self.source, target=self.target)


@dataclass(frozen=True)
class Result:
    """Test error of one candidate: mean squared error over the target's variance, so that 1 is a constant."""

    task: str
    recipe: Recipe
    seed: int
    error: float
    steps: int


def normal(shape: tuple[int, ...], generator: Generator) -> Tensor:
    """Standard normal values."""
    return torch.randn(shape, generator=generator)


def rough_scales(shape: tuple[int, ...], generator: Generator) -> Tensor:
    """Normal vectors whose lengths differ widely between examples."""
    scale = torch.exp(0.7 * torch.randn((shape[0], 1), generator=generator))
    return scale * normal(shape, generator)


def shifted_patterns(shape: tuple[int, ...], generator: Generator) -> Tensor:
    """One bump of random sign pattern at a random place of a noisy row of features."""
    num_examples, width = shape
    signs = torch.randint(0, 2, (num_examples, 3), generator=generator) * 2.0 - 1.0
    place = torch.randint(0, width - 6, (num_examples, 1), generator=generator)
    columns = place + torch.tensor([0, 2, 4])
    return 0.2 * normal(shape, generator).scatter(1, columns, 10 * signs)


def drifting_channels(shape: tuple[int, ...], generator: Generator) -> Tensor:
    """Images with a brightness of their own for each channel."""
    return normal(shape, generator) + normal((*shape[:2], 1, 1), generator)


def keyed_values(shape: tuple[int, ...], generator: Generator) -> Tensor:
    """Sequences of (key, value): eight one-hot key features, then random values."""
    keys = F.one_hot(torch.randint(0, 8, shape[:-1], generator=generator), 8).float()
    return torch.cat([4 * keys, normal((*shape[:-1], shape[-1] - 8), generator)], dim=-1)


def rectified(generator: Generator, *, num_in: int, num_hidden: int) -> Callable[[Tensor], Tensor]:
    """A random network with one hidden layer of rectified units and eight outputs."""
    first, bias = normal((num_in, num_hidden), generator), normal((num_hidden,), generator)
    last = normal((num_hidden, 8), generator)
    return lambda x: (x @ first + bias).relu() @ last


def two_directions(generator: Generator) -> Callable[[Tensor], Tensor]:
    """Waves and rings in a plane of a 64-dimensional space."""
    plane = torch.linalg.qr(normal((64, 2), generator))[0]

    def teach(x: Tensor) -> Tensor:
        u, v = (x @ plane).unbind(-1)
        return torch.stack([(2 * u).sin(), (2 * v).cos(), (u * u + v * v).sqrt(), u * v], dim=-1)

    return teach


def products(generator: Generator) -> Callable[[Tensor], Tensor]:
    """Products of pairs of directions."""
    left, right = normal((16, 8), generator), normal((16, 8), generator)
    return lambda x: (x @ left) * (x @ right) / 16


def pattern_counts(_: Generator) -> Callable[[Tensor], Tensor]:
    """Which of eight sign patterns occurs, wherever it is."""

    def teach(x: Tensor) -> Tensor:
        windows = x.unfold(1, 5, 1)[:, :, ::2]
        signs = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * 3)
        return (windows @ signs.T).amax(1) / 6

    return teach


def local_patterns(generator: Generator) -> Callable[[Tensor], Tensor]:
    """Saturated dense 3×3 patterns across all channels."""
    first, last = normal((8, 4, 3, 3), generator) / 6, normal((4, 8, 3, 3), generator) / 8
    return lambda x: F.conv2d(F.conv2d(x, first, padding=1).mul(4).tanh(), last, padding=1)


def separable_patterns(generator: Generator) -> Callable[[Tensor], Tensor]:
    """A 3×3 pattern in each of many channels by itself, then a mixture of what was found."""
    depth, mix = normal((24, 1, 3, 3), generator), normal((8, 24, 1, 1), generator) / 5
    return lambda x: F.conv2d(F.conv2d(x, depth, padding=1, groups=24).relu(), mix)


def far_pairs(_: Generator) -> Callable[[Tensor], Tensor]:
    """The larger of two pixels, five to the left and five to the right."""

    def teach(x: Tensor) -> Tensor:
        padded = F.pad(x, (5, 5))
        return torch.maximum(padded[..., 10:], padded[..., :-10])

    return teach


def channel_statistics(generator: Generator) -> Callable[[Tensor], Tensor]:
    """Each channel is scaled by a function of all channels' means over the image."""
    mix = normal((8, 8), generator)

    def teach(x: Tensor) -> Tensor:
        return x * (x.mean((2, 3)) @ mix).tanh()[..., None, None]

    return teach


def bounded_walk(_: Generator) -> Callable[[Tensor], Tensor]:
    """Running sums that stop at a wall on either side: what counts is the order, over any distance."""

    def teach(x: Tensor) -> Tensor:
        place, path = torch.zeros_like(x[:, 0]), []
        for now in x.unbind(1):
            place = (place + now).clamp(-3, 3)
            path.append(place)
        return torch.stack(path, dim=1)

    return teach


def same_key(_: Generator) -> Callable[[Tensor], Tensor]:
    """At each time the mean value of all positions so far that have the key of this one."""

    def teach(x: Tensor) -> Tensor:
        keys, values = x[..., :8] / 4, x[..., 8:]
        match = (keys @ keys.transpose(1, 2)).tril()
        return match @ values / match.sum(-1, keepdim=True)

    return teach


def scale_free(generator: Generator) -> Callable[[Tensor], Tensor]:
    """A rectified network of the direction of a vector, whatever its length."""
    teach = rectified(generator, num_in=16, num_hidden=24)
    return lambda x: teach(4 * F.normalize(x, dim=-1))


def _vectors(num_in: int, num_out: int) -> tuple[Port, Port]:
    return Port("vector", (num_in,)), Port("vector", (num_out,))


def _images(num_in: int, num_out: int, size: int) -> tuple[Port, Port]:
    return Port("image", (num_in, size, size)), Port("image", (num_out, size, size))


def _sequences(length: int, num_in: int, num_out: int) -> tuple[Port, Port]:
    return Port("sequence", (length, num_in)), Port("sequence", (length, num_out))


TASKS = (
    Task(
        "mlp", "kinks of a few features", *_vectors(6, 8), partial(rectified, num_in=6, num_hidden=12), normal
    ),
    Task("bottleneck", "waves along two of 64 directions", *_vectors(64, 4), two_directions, normal),
    Task("gated", "products of directions", *_vectors(16, 8), products, normal),
    Task("conv1d", "a pattern anywhere in a vector", *_vectors(40, 8), pattern_counts, shifted_patterns),
    Task("conv2d", "dense local patterns", *_images(4, 4, 10), local_patterns, normal, 500),
    Task(
        "separable2d",
        "local patterns channel by channel",
        *_images(24, 8, 10),
        separable_patterns,
        normal,
        500,
    ),
    Task("dilated2d", "pairs of far pixels", *_images(4, 4, 16), far_pairs, normal, 500),
    Task(
        "squeeze_excite",
        "gain by channel means",
        *_images(8, 8, 8),
        channel_statistics,
        drifting_channels,
        500,
    ),
    Task("gru", "a running sum between walls", *_sequences(32, 4, 4), bounded_walk, normal),
    Task("attention", "mean of the values of one key", *_sequences(24, 12, 4), same_key, keyed_values),
    Task("ffn", "directions of vectors of any length", *_vectors(16, 8), scale_free, rough_scales),
)


class Grafted(nn.Module):
    """A linear host with a body beside it; none for the host alone."""

    def __init__(self, site: Site, body: nn.Module | None) -> None:
        super().__init__()
        self.host = pointwise(site.source.kind, site.source.width, site.target.width)
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.host(x)
        return y if self.body is None else y + self.body(x)


def candidates(site: Site) -> list[Recipe]:
    """The host alone, then every default recipe that fits."""
    return [HOST, *(recipe for recipe in DEFAULT_RECIPES if fits(recipe, site) is None)]


def steps_of(recipe: Recipe, site: Site, steps: int) -> int:
    """Steps that cost what ``steps`` of the median candidate cost, between a third and three times as many."""
    macs = {other: cost(other, site).macs for other in candidates(site)[1:]}
    median = statistics.median(macs.values())
    return round(steps * min(3.0, max(1 / 3, median / macs.get(recipe, median))))


def data(task: Task, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Training inputs and noisy targets, test inputs and clean targets; targets of unit variance."""
    generator = torch.Generator().manual_seed(1_000 + seed)
    teach = task.teacher(generator)
    x = task.inputs(task.source.batched(task.num_train + NUM_TEST), generator)
    y = teach(x)
    y = (y - y.mean()) / y.std()
    n = task.num_train
    return x[:n], y[:n] + NOISE * normal(y[:n].shape, generator), x[n:], y[n:]


def trained_error(task: Task, recipe: Recipe, seed: int, *, steps: int) -> Result:
    """Train host and graft together and measure once on the test examples."""
    x, y, x_test, y_test = data(task, seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Grafted(task.site, None if recipe == HOST else build(recipe, task.site, seed=seed))
    num_steps = steps_of(recipe, task.site, steps)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, num_steps)
    order = torch.Generator().manual_seed(seed)
    for _ in range(num_steps):
        rows = torch.randint(len(x), (BATCH,), generator=order)
        optimizer.zero_grad()
        F.mse_loss(model(x[rows]), y[rows]).backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        error = F.mse_loss(model(x_test), y_test).item() / y_test.var().item()
    return Result(task.wins, recipe, seed, error, num_steps)


def verdict(task: Task, results: list[Result]) -> list[str]:
    """The task's row: the expected blueprint, its median error, the best other, and on how many seeds it won."""
    errors: dict[str, dict[int, float]] = {}
    for result in results:
        if result.task == task.wins:
            errors.setdefault(result.recipe.blueprint, {})[result.seed] = result.error
    own = errors.pop(task.wins)
    host = errors.pop(HOST.blueprint)
    best = min(errors, key=lambda name: statistics.median(errors[name].values()))
    won = sum(own[seed] < min(other[seed] for other in errors.values()) for seed in own)
    return [
        task.wins,
        task.what,
        *(f"{statistics.median(error.values()):.3f}" for error in (host, own)),
        f"{best} {statistics.median(errors[best].values()):.3f}",
        f"{won} of {len(own)}",
        "yes" if won == len(own) else "no",
    ]


def table(results: list[Result]) -> Table:
    """One row a blueprint; the notes tell every candidate's error on every task."""
    cells = [verdict(task, results) for task in TASKS]
    missing = [row[0] for row in cells if row[-1] == "no"]
    notes = [f"No win: {', '.join(missing)}." if missing else "Every blueprint has a task of its own."]
    return Table(
        name="catalogue",
        title="What each blueprint is in the catalogue for (test error over variance, median of seeds)",
        columns=["blueprint", "task", "host alone", "with it", "best other", "seeds won", "wins"],
        cells=cells,
        notes=notes + [line for task in TASKS for line in details(task, results)],
        rows=[
            {"task": r.task, "recipe": str(r.recipe), "seed": r.seed, "error": r.error, "steps": r.steps}
            for r in results
        ],
    )


def details(task: Task, results: list[Result]) -> list[str]:
    """Median error, parameters and multiply-adds of every candidate on one task."""
    lines = []
    for recipe in candidates(task.site)[1:]:
        of = [r for r in results if (r.task, r.recipe) == (task.wins, recipe)]
        price, error = cost(recipe, task.site), statistics.median(r.error for r in of)
        lines.append(f"{recipe} {error:.3f} ({price.params:,} p, {price.macs:,} m, {of[0].steps} steps)")
    return [f"{task.what}: " + "; ".join(lines)]


def jobs(given: Options) -> list[Callable[[], Result]]:
    """Every task, candidate and seed."""
    steps = 20 if given.quick else 1_200
    return [
        partial(trained_error, task, recipe, seed, steps=steps)
        for task in TASKS
        for recipe in candidates(task.site)
        for seed in given.seeds
    ]


def main() -> None:
    """Run all of it and publish the table."""
    given = options("catalogue", "One task per blueprint, on which no other wins.", seeds=3)
    torch.set_num_threads(1)
    if given.jobs > 1:
        with ProcessPoolExecutor(given.jobs, initializer=partial(torch.set_num_threads, 1)) as pool:
            results = [future.result() for future in [pool.submit(job) for job in jobs(given)]]
    else:
        results = [job() for job in jobs(given)]
    publish(table(results), command=given.command, stored=not given.quick)


if __name__ == "__main__":
    main()
