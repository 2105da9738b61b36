"""The shape of a static net, grown: its accuracy for at most 60 % of its compute?

The growing run trains a net of a fraction of the units for nearly half of the steps, is then widened to the very shape
of the static net, block after block, folded on the spot, and trains on as a plain net of that shape. All arms of a seed
see the same batches and the same schedule; shadows, trials and judgements are paid for. The shape is given, so in one
arm the widening is decreed: the new units of a block learn in the shadow, and join whatever the held-out loss says. In
another the judge may refuse. What the saving is worth without growth says the control: the static net on a schedule of
its own over 60 % of the steps.

The times of growth, the widths of the starts and the numbers of steps were chosen on seeds 20 to 22.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import msgspec
import torch
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
    static_arm,
    training_step,
)
from benchmarks.command import Options, options
from benchmarks.data import Rows, Task, diamonds, fashion
from benchmarks.growers import evaluation
from benchmarks.meter import Meter
from benchmarks.networks import image_cnn, image_mlp, mlp
from benchmarks.paired import mean_sd
from benchmarks.pool import Job, run_jobs
from benchmarks.summary import COLUMNS, by_arm, difference_notes, summary_cells
from benchmarks.table import Table, publish
from esper import Budget, Grower, Judge, Recipe
from esper.controller.candidate import Candidate
from esper.controller.judge import Verdict
from esper.controller.rules import Pace, Rules, View
from esper.events import Attached, Score
from esper.growth.held_out import HeldOut
from esper.growth.host import Losses

STATIC, DECREED, JUDGED = "static net", "grown to its shape", "grown, unless the judge refuses"
SHARE = 0.6
REACHED = "shape reached"
PATIENT = Judge(alpha=0.5, tests=8, price=0.0, head_start=0.0)
FIRST, LAST = 0.47, 0.65
"""Shares of the steps: no block is widened before the first (unless a case says otherwise), none after the second."""


class Indulgent(Judge):
    """Accepts whatever is asked."""

    def graft(self, host: Losses, grafted: Losses, *, growth: float, progress: float = 0.0) -> Verdict:
        """The usual verdict, accepted."""
        return replace(super().graft(host, grafted, growth=growth, progress=progress), accepted=True)

    def hopeless(self, host: Losses, changed: Losses) -> bool:  # noqa: ARG002
        """Nothing is."""
        return False


@dataclass(frozen=True)
class InOrder:
    """The best candidate by shadow score goes to trial, good or bad; anything else as the rules say."""

    rules: Rules

    def pace(self, total_steps: int | None) -> Pace:
        """That of the rules."""
        return self.rules.pace(total_steps)

    def propose(self, view: View) -> Sequence[Candidate]:
        """All."""
        return view.candidates

    def halve(self, scores: Sequence[Score]) -> Sequence[str]:
        """All go on."""
        return [score.candidate for score in scores]

    def choose(self, scores: Sequence[Score]) -> Sequence[str]:
        """The best."""
        return [score.candidate for score in scores[:1]]

    def rest(self, num_refusals: int) -> int | None:
        """That of the rules."""
        return self.rules.rest(num_refusals)


@dataclass(frozen=True)
class Case:
    """A task, the static net, and a start with one part in ``1 + ratio`` of its hidden units."""

    task: Callable[[Path, int], Task]
    static: Build
    start: Build
    ratio: float
    plan: Plan
    first: float = FIRST
    evaluate: Callable[[Rows, int], HeldOut] = evaluation


CASES = {
    "diamonds, MLP 64-64 from 8-8": Case(
        diamonds, partial(mlp, (9, 64, 64, 10)), partial(mlp, (9, 8, 8, 10)), 7.0, Plan(3_000)
    ),
    "Fashion-MNIST, MLP 128 from 16": Case(
        lambda folder, _: fashion(folder), partial(image_mlp, 128), partial(image_mlp, 16), 7.0, Plan(3_000)
    ),
    "Fashion-MNIST, CNN 16-32 from 4-8": Case(
        lambda folder, _: fashion(folder), partial(image_cnn, 16), partial(image_cnn, 4), 3.0, Plan(1_500)
    ),
}


class Widening:
    """Gives every block of a model the static net's width: one Grower a block, each folded as soon as it has kept one.

    A Grower is offered the blocks that are still narrow, and begins a round at once; the first when the
    case says. What has not been kept at ``LAST`` of them stays narrow.
    """

    def __init__(self, case: Case, session: Session, *, decreed: bool) -> None:
        self._case, self._session, self._decreed, self._step = case, session, decreed, 0
        self._narrow: list[str] | None = None
        self._grower: Grower | None = None
        self.kept: list[str] = []

    def begin(self) -> None:
        """Call before every step: where a block is due, its Grower is made.

        That takes one pass over the held-out rows and a few batches more, which the FLOPs of the table leave out.
        """
        share = self._step / self._session.plan.steps
        if self._grower is None and self._case.first <= share < LAST and self._narrow != []:
            self._grower = self._next()

    def step(self, closure: Callable[[], Tensor]) -> None:
        """Call after every optimizer step."""
        self._step += 1
        if self._grower is not None:
            self._grower.step(closure)
            self._fold_what_is_kept(late=self._step >= LAST * self._session.plan.steps)

    def _next(self) -> Grower:
        session, steps = self._session, self._session.plan.steps
        rules = Rules(
            num_trials=1, start=1, updates=max(steps // 30, 2), trial=max(steps // 30, 2), rest_steps=1
        )
        at_once = InOrder(replace(rules, updates=max(steps // 60, 2), trial=2))
        made = Grower(
            session.model,
            session.optimizer,
            evaluate=self._case.evaluate(session.held_out, session.plan.batch),
            scheduler=session.scheduler,
            budget=Budget(params_ratio=None),
            sites=self._narrow,
            recipes=[Recipe.of("widen", ratio=self._case.ratio)],
            controller=at_once if self._decreed else rules,
            judge=Indulgent() if self._decreed else PATIENT,
            seed=session.seed,
        )
        if self._narrow is None:
            self._narrow = [site.name for site in made.sites().offers if site.block is not None]
        return made

    def _fold_what_is_kept(self, *, late: bool) -> None:
        assert self._grower is not None
        assert self._narrow is not None
        kept = [event for event in self._grower.history if isinstance(event, Attached)]
        if kept or late or self._grower.finished:
            self._grower.finish()
            self._grower = None
        for event in kept:
            self._narrow.remove(event.candidate.split(" ")[0])
            self.kept.append(f"{event.candidate} @{self._step}")


@dataclass(frozen=True)
class Run:
    """One case with one seed."""

    case: Case
    task: Task
    plan: Plan
    seed: int


def grown(run: Run, *, decreed: bool, counted: bool = False) -> tuple[Trained, list[str]]:
    """Train the start, widen and fold it on the way, and train on; and what was kept."""
    torch.manual_seed(run.seed)
    session = prepared(run.case.start(), run.task.split, run.plan, run.seed)
    widening, meter = Widening(run.case, session, decreed=decreed), Meter()
    counting: AbstractContextManager[Any] = meter if counted else nullcontext()
    start = perf_counter()
    for x, y in batches(run.task.split.train, run.plan, run.seed):
        widening.begin()
        with counting:
            training_step(session, x, y)
            widening.step(partial(loss_of, session.model, x, y))
    return Trained(session.model, meter.flops, perf_counter() - start), widening.kept


def grown_row(arm: str, run: Run, *, decreed: bool) -> Row:
    """Grown twice: once for the time, and once for the FLOPs, the count of which slows it."""
    timed, kept = grown(run, decreed=decreed)
    counted, _ = grown(run, decreed=decreed, counted=True)
    same = map(torch.equal, timed.model.parameters(), counted.model.parameters())
    assert all(same), "counting changed the run"
    reached = REACHED if shape(timed.model) == shape(run.case.static()) else "another shape"
    note = "; ".join([reached, *kept])
    return measured(arm, replace(timed, flops=counted.flops), run.task, run.seed, note=note)


def shape(model: nn.Module) -> list[tuple[int, ...]]:
    """The shapes of all parameters, in order."""
    return [tuple(parameter.shape) for parameter in model.parameters()]


def rows_of(name: str, folder: Path, plan: Plan, seed: int) -> list[Row]:
    """All arms of one seed, named after their case."""
    case = CASES[name]
    task = case.task(folder, seed)
    shorter, run = replace(plan, steps=round(SHARE * plan.steps)), Run(case, task, plan, seed)
    rows = [
        grown_row(DECREED, run, decreed=True),
        grown_row(JUDGED, run, decreed=False),
        static_arm(STATIC, case.static, task, plan, seed),
        static_arm(f"{STATIC}, {SHARE:.0%} of the steps", case.static, task, shorter, seed),
        static_arm("its start, not grown", case.start, task, plan, seed),
    ]
    return [msgspec.structs.replace(row, arm=f"{name}: {row.arm}") for row in rows]


def table(rows: list[Row]) -> Table:
    """All arms of all cases, shares of the compute, and paired differences."""
    notes = []
    for name in dict.fromkeys(row.arm.partition(": ")[0] for row in rows):
        own = [row for row in rows if row.arm.startswith(f"{name}: ")]
        notes += [compute_note(name, own), *difference_notes(own, f"{name}: {DECREED}")]
    return Table(
        name="same_shape",
        title="The shape of a static net, grown at half of the run",
        columns=COLUMNS,
        cells=summary_cells(rows),
        notes=notes + [f"seed {row.seed}, {row.arm}: {row.note}" for row in rows if row.note],
        rows=[msgspec.to_builtins(row) for row in rows],
    )


def compute_note(name: str, rows: list[Row]) -> str:
    """Compute of the grown runs over that of the static net, by seed, and how often the shape was reached."""
    arms, said = by_arm(rows), []
    for arm in (DECREED, JUDGED):
        pairs = list(zip(arms[f"{name}: {arm}"], arms[f"{name}: {STATIC}"], strict=True))
        flops, _ = mean_sd([mine.flops / other.flops for mine, other in pairs])
        reached = sum(mine.note.startswith(REACHED) for mine, _ in pairs)
        said.append(f"{arm}: {flops:.1%} of the static net's compute, {REACHED} in {reached} of {len(pairs)}")
    return f"{name}: {'; '.join(said)}"


def jobs(given: Options) -> list[Job]:
    """One seed of one case each."""
    if given.quick:
        return [Job("quick", partial(rows_of, next(iter(CASES)), given.data, Plan(60), 0))]
    return [
        Job(f"{name}, seed {seed}", partial(rows_of, name, given.data, case.plan, seed))
        for seed in given.seeds
        for name, case in CASES.items()
    ]


def main() -> None:
    """Run all arms and publish the table."""
    given = options("same_shape", "The shape of a static net, grown at half of the run.", seeds=10)
    rows = run_jobs(jobs(given), num_workers=given.jobs)
    publish(table(rows), command=given.command, stored=not given.quick)


if __name__ == "__main__":
    main()
