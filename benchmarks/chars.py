"""A character transformer on Python's standard library: does one that grows come to the static one's loss sooner?

Windows of 17 characters, each predicted from those before it in its window. The static net has two blocks with
feed-forward layers of 512 units. The growing one starts with 64, is widened to 512 from 30 % of the steps on, one
block after the other, as in ``benchmarks.same_shape`` (decreed: the shape is given), and trains on as a plain net of
that shape. All arms of a seed see the same batches. The control is the static net over 70 % of the steps on a schedule
of its own: what the time is worth without growth. Seconds are CPU seconds of the process, one thread, with all that
growth takes, without the readings of the curve. The FLOPs of growth are counted on the first seed only.

Sizes, the number of steps and the time of growth were chosen on seed 20, with 700 steps.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from time import process_time
from typing import Any

import msgspec
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.arms import (
    Build,
    Plan,
    Row,
    Session,
    Trained,
    batches,
    loss_of,
    measured,
    prepared,
    scores,
    step_flops,
    training_step,
)
from benchmarks.command import Options, options
from benchmarks.data import Rows, Split, Task
from benchmarks.meter import Meter
from benchmarks.paired import mean_sd, paired
from benchmarks.pool import Job, run_jobs
from benchmarks.same_shape import Case, Run, Widening
from benchmarks.summary import by_arm, summary_cells
from benchmarks.table import Table, publish
from esper import held_out
from esper.growth.held_out import HeldOut
from esper.training.builtin import chars

GROWN, STATIC, SHORTER, START = (
    "grown to its shape",
    "static net",
    "static net, 70% of the steps",
    "its start, not grown",
)
WIDTH, HEADS = 128, 4
FIRST, SHARE, RATIO, READINGS = 0.3, 0.7, 7.0, 20


class Attention(nn.Module):
    """Causal attention of ``HEADS`` heads over ``(B, T, WIDTH)``."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value, self.out = (nn.Linear(WIDTH, WIDTH) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        q, k, v = (
            layer(x).unflatten(-1, (HEADS, -1)).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        seen = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        y: Tensor = self.out(seen.transpose(1, 2).flatten(2))
        return y


class Block(nn.Module):
    """Attention and a feed-forward layer on a residual stream, norm first."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(WIDTH), Attention()
        self.norm2 = nn.LayerNorm(WIDTH)
        self.up, self.act, self.down = nn.Linear(WIDTH, hidden), nn.GELU(), nn.Linear(hidden, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        x = x + self.attention(self.norm1(x))
        return x + self.down(self.act(self.up(self.norm2(x))))


class Transformer(nn.Module):
    """Characters ``(B, T)`` to scores of the next ones ``(B, num_characters, T)``."""

    def __init__(self, *hidden: int) -> None:
        super().__init__()
        num_characters = len(chars.ALPHABET) + 1
        self.characters = nn.Embedding(num_characters, WIDTH)
        self.places = nn.Embedding(chars.CONTEXT, WIDTH)
        self.blocks = nn.Sequential(*(Block(size) for size in hidden))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, num_characters)

    def forward(self, x: Tensor) -> Tensor:
        """Scores in the order that ``F.cross_entropy`` takes."""
        places = torch.arange(x.shape[1], device=x.device)
        y: Tensor = self.head(self.norm(self.blocks(self.characters(x) + self.places(places))))
        return y.transpose(1, 2)


SMALL, FINAL = partial(Transformer, 64, 64), partial(Transformer, 512, 512)


class Paced(Row, frozen=True, kw_only=True):
    """A row with the held-out loss on the way: pairs of CPU seconds and loss."""

    curve: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True)
class Paces:
    """What a training run came to, and its curve."""

    trained: Trained
    curve: tuple[tuple[float, float], ...]
    kept: str


def text(seed: int, plan: Plan) -> Task:
    """As many training windows as ``plan`` asks for, 500 held out and 4,000 to test, each set of files of its own."""
    data = chars.task(seed).data
    num = plan.steps * plan.batch
    held, test = _windows(data.held_out).part(0, 500), _windows(data.test.open()).part(0, 4_000)
    return Task(Split(_windows(data.train).part(0, num), held), test)


def by_chance() -> Task:
    """A few windows of characters drawn by lot: the same form, at once."""
    drawn = torch.randint(
        0, len(chars.ALPHABET), (300, chars.CONTEXT), generator=torch.Generator().manual_seed(0)
    )
    rows = Rows(drawn, drawn.roll(-1, 1))
    return Task(Split(rows.part(0, 200), rows.part(200, 240)), rows.part(240, 300))


def _windows(rows: tuple[Tensor, ...]) -> Rows:
    whole = torch.cat([rows[0], rows[1][:, None]], 1)
    return Rows(whole[:, :-1], whole[:, 1:])


def per_window(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Mean loss of every window, shape ``(N,)``."""
    return F.cross_entropy(model(batch[0]), batch[1], reduction="none").mean(1)


def evaluation(rows: Rows, batch: int) -> HeldOut:
    """Losses by window over ``rows``, read ``batch`` at a time."""
    loader = list(zip(torch.split(rows.x, batch), torch.split(rows.y, batch), strict=True))
    return held_out(loader, per_example=per_window)


def paced(run: Run, build: Build, *, grows: bool = False, counted: bool = False) -> Paces:
    """Train what ``build`` makes, with or without growth; the curve is read on the held-out rows."""
    task, plan = run.task, run.plan
    torch.manual_seed(run.seed)
    session = prepared(build(), task.split, plan, run.seed)
    widening = Widening(run.case, session, decreed=True) if grows else None
    meter, spent, curve = Meter(), 0.0, []
    counting: AbstractContextManager[Any] = meter if counted else nullcontext()
    for number, (x, y) in enumerate(batches(task.split.train, plan, run.seed), start=1):
        start = process_time()
        if widening is not None:
            widening.begin()
        with counting:
            training_step(session, x, y)
            if widening is not None:
                widening.step(partial(loss_of, session.model, x, y))
        spent += process_time() - start
        if number % max(plan.steps // READINGS, 1) == 0 and not counted:
            curve.append((spent, _read(session)))
    flops = (
        meter.flops if grows else plan.steps * step_flops(session.model, task.split.train.part(0, plan.batch))
    )
    kept = "" if widening is None else "; ".join(widening.kept)
    return Paces(Trained(session.model, flops, spent), tuple(curve), kept)


def _read(session: Session) -> float:
    loss = scores(session.model, session.held_out)[1]
    session.model.train()
    return loss


def paced_row(arm: str, paces: Paces, task: Task, seed: int) -> Paced:
    """The row of a run, with its curve."""
    row = measured(arm, paces.trained, task, seed, note=paces.kept)
    return Paced(**msgspec.structs.asdict(row), curve=paces.curve)


def text_rows(plan: Plan, seed: int, *, counted: bool) -> list[Row]:
    """All arms of one seed on the standard library."""
    return rows_of(text(seed, plan), plan, seed, counted=counted)


def rows_of(task: Task, plan: Plan, seed: int, *, counted: bool = True) -> list[Row]:
    """All arms of one seed; where they are not ``counted``, the FLOPs of the grown one are 0."""
    run = Run(Case(lambda *_: task, FINAL, SMALL, RATIO, plan, FIRST, evaluation), task, plan, seed)
    shorter = replace(run, plan=replace(plan, steps=round(SHARE * plan.steps)))
    grown = paced(run, SMALL, grows=True)
    flops = paced(run, SMALL, grows=True, counted=True).trained.flops if counted else 0
    paces = {
        GROWN: replace(grown, trained=replace(grown.trained, flops=flops)),
        STATIC: paced(run, FINAL),
        SHORTER: paced(shorter, FINAL),
        START: paced(run, SMALL),
    }
    return [paced_row(arm, own, task, seed) for arm, own in paces.items()]


def table(rows: list[Row]) -> Table:
    """All arms, and when the grown run came to the final loss of the static one."""
    return Table(
        name="chars",
        title="A character transformer: grown to the shape of a static one",
        columns=["arm", "n", "characters right", "test loss", "held-out", "parameters", "CPU seconds"],
        cells=[[*cells[:-2], cells[-1]] for cells in summary_cells(rows)],
        notes=[*notes_of([row for row in rows if isinstance(row, Paced)])]
        + [f"seed {row.seed}, {row.arm}: {row.note}" for row in rows if row.note],
        rows=[msgspec.to_builtins(row) for row in rows],
    )


def notes_of(rows: list[Paced]) -> Iterator[str]:
    """Time, compute and loss of every arm against the static final, and when each reached its held-out loss."""
    arms: dict[str, dict[int, Paced]] = {arm: {} for arm in by_arm(rows)}
    for row in rows:
        arms[row.arm][row.seed] = row
    for arm in (GROWN, SHORTER):
        pairs = [(arms[arm][seed], static) for seed, static in arms[STATIC].items()]
        seconds, sd = mean_sd([mine.seconds / static.seconds for mine, static in pairs])
        flops, _ = mean_sd([mine.flops / static.flops for mine, static in pairs if mine.flops])
        loss = paired(*({row.seed: row.test_loss for row in group} for group in zip(*pairs, strict=True)))
        cost = f"{seconds:.0%} ± {100 * sd:.0f} of its CPU time, {flops:.0%} of its FLOPs"
        gap = f"test loss {loss.mean:+.4f} ± {loss.sd:.4f}, p = {loss.p:.2g}, n = {loss.num}"
        yield f"{arm} against {STATIC}: {cost}, {gap}"
        shares = [share for mine, static in pairs if (share := share_until(mine, static)) is not None]
        at = f", at {mean_sd(shares)[0]:.0%} of its CPU time" if shares else ""
        yield f"{arm} came to the final held-out loss of {STATIC} in {len(shares)} of {len(pairs)} seeds{at}"


def share_until(mine: Paced, static: Paced) -> float | None:
    """CPU time until the curve first was as low as the other's end, over the other's time; ``None``: it never was."""
    goal = static.curve[-1][1]
    return next((seconds / static.seconds for seconds, loss in mine.curve if loss <= goal), None)


def jobs(given: Options) -> list[Job]:
    """One a seed."""
    if given.quick:
        return [Job("quick", partial(rows_of, by_chance(), Plan(steps=40, batch=8), 0))]
    plan = Plan(steps=500, batch=64)
    return [
        Job(f"seed {seed}", partial(text_rows, plan, seed, counted=seed == given.seeds.start))
        for seed in given.seeds
    ]


def main() -> None:
    """Run all arms and publish the table."""
    given = options("chars", "A character transformer, grown and from scratch.")
    rows = run_jobs(jobs(given), num_workers=given.jobs)
    publish(table(rows), command=given.command, stored=not given.quick)


if __name__ == "__main__":
    main()
