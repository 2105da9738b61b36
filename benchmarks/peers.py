"""Peers on the same data for the same number of steps: gromo, which grows MLPs, and peft's LoRA as an adapter.

**Growing** (MNIST-1D from MLP 32-32, digits from MLP 8-8). gromo grows as its tutorial does: at four times, spread over
the first 55 % of the steps, one layer after the other, statistics over the whole training set, all neurons that it
finds significant, the scale by its line search on the training set, then a fresh optimizer. Esper runs as in the other
benchmarks, once with widening alone (the same kind of move) and once with the recipes of ``benchmarks.mnist1d``; it
also reads the held-out rows, which gromo has no use for. gromo's sizes from scratch say what its growth is worth beside
its size. The runs are short: 2,000 and 1,000 steps.

**Adapting** (Fashion-MNIST, MLP 128-128). The net is trained on the classes 0 to 4, then shown the classes 5 to 9 only,
over which it is tested. LoRA and Esper leave its weights alone and train what they add; Esper chooses where and, among
what it is offered, what. Fine-tuning trains everything. Optimizer (AdamW), learning rate and schedule are the same
everywhere; none was tuned for anybody. Parameters are those that the arm has trained.

gromo and peft are among the requirements of development only.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from time import process_time
from typing import Any

import msgspec
import torch
from torch import Tensor, nn

from benchmarks.arms import (
    Build,
    Growing,
    Plan,
    Row,
    Session,
    Trained,
    batches,
    grow,
    history_note,
    loss_of,
    measured,
    prepared,
    train,
    training_step,
)
from benchmarks.command import Options, options
from benchmarks.data import Rows, Split, Task, digits, fashion, mnist1d
from benchmarks.growers import WIDENING, by_rules, grower
from benchmarks.networks import image_mlp, mlp, num_params
from benchmarks.paired import mean_sd
from benchmarks.pool import Job, run_jobs
from benchmarks.summary import by_arm, difference_notes
from benchmarks.table import Table, publish
from esper import Grower, Recipe

COLUMNS = ["arm", "n", "test accuracy", "test loss", "trained parameters", "CPU seconds"]
SCALES = (0.0, 0.1, 0.5, 1.0)
EVENTS = (0.1, 0.25, 0.4, 0.55)
GROMO, WIDENED, GROWN, LORA = "gromo", "Esper, widening", "Esper", "Esper, grafts of low rank"
RANKS = (4, 16)


@dataclass(frozen=True)
class Case:
    """A task and the sizes of the MLP that growth starts from."""

    task: Callable[[Path, int], Task]
    sizes: tuple[int, ...]
    plan: Plan


CASES = {
    "MNIST-1D from 32-32": Case(lambda folder, _: mnist1d(folder), (40, 32, 32, 10), Plan(2_000)),
    "digits from 8-8": Case(lambda _, seed: digits(seed), (64, 8, 8, 10), Plan(1_000)),
}


def growing_rows(name: str, folder: Path, plan: Plan, seed: int) -> list[Row]:
    """All arms of one seed of one case of growing."""
    case = CASES[name]
    task, start = case.task(folder, seed), partial(mlp, case.sizes)
    run = Run(task, plan, seed)
    model, seconds = gromo(case.sizes, task.split.train, plan, seed)
    sizes = (*(layer.in_features for layer in model.layers), 10)
    rows = [
        measured(GROMO, Trained(model, 0, seconds), task, seed, note="-".join(map(str, sizes[1:-1]))),
        measured(
            f"{GROMO}'s sizes from scratch", train(partial(mlp, sizes), task.split, plan, seed), task, seed
        ),
        _grown(WIDENED, widening, start, run),
        _grown(GROWN, by_rules, start, run),
        _static("start, not grown", start, run),
    ]
    return [msgspec.structs.replace(row, arm=f"{name}: {row.arm}") for row in rows]


@dataclass(frozen=True)
class Run:
    """A task with its schedule and one seed."""

    task: Task
    plan: Plan
    seed: int


def _grown(arm: str, growing: Growing, start: Build, run: Run) -> Row:
    trained = clocked(lambda: grow(start, run.task.split, run.plan, run.seed, growing=growing))
    return measured(arm, trained, run.task, run.seed, note=history_note(trained))


def _static(arm: str, build: Build, run: Run) -> Row:
    trained = clocked(lambda: train(build, run.task.split, run.plan, run.seed))
    return measured(arm, trained, run.task, run.seed)


def clocked(work: Callable[[], Trained]) -> Trained:
    """What ``work`` comes to, with the CPU seconds of the process: others may be running beside it."""
    start = process_time()
    trained = work()
    return replace(trained, seconds=process_time() - start)


def widening(session: Session) -> Grower:
    """More units in the layers that are there."""
    return grower(session, recipes=WIDENING)


def gromo(sizes: tuple[int, ...], rows: Rows, plan: Plan, seed: int) -> tuple[Any, float]:
    """gromo's ``GrowingMLP`` with ReLU, grown on the way; the model and the seconds."""
    from gromo.containers.growing_mlp import GrowingMLP

    torch.manual_seed(seed)
    hidden = sizes[1:-1]
    cpu = torch.device("cpu")
    model = GrowingMLP(sizes[0], sizes[-1], hidden[0], len(hidden), activation=nn.ReLU(), device=cpu)
    loader = list(zip(torch.split(rows.x, plan.batch), torch.split(rows.y, plan.batch), strict=True))
    session = prepared(model, Split(rows, rows), plan, seed)
    events = {round(share * plan.steps): number % len(hidden) for number, share in enumerate(EVENTS)}
    start = process_time()
    for number, (x, y) in enumerate(batches(rows, plan, seed)):
        if number in events:
            _gromo_event(model, loader, events[number])
            session = _fresh(session, number)
        training_step(session, x, y)
    return model, process_time() - start


def _gromo_event(model: Any, loader: list[tuple[Tensor, Tensor]], layer: int) -> None:
    """``grow`` of gromo's GrowingContainer tutorial, with cross-entropy."""
    from gromo.utils.training_utils import compute_statistics, evaluate_model

    model.set_growing_layers(index=layer)
    compute_statistics(model, loader, loss_function=nn.CrossEntropyLoss(reduction="sum"))
    model.compute_optimal_updates()
    model.reset_computation()
    model.dummy_select_update()
    losses = {}
    for scale in SCALES:
        model.set_scaling_factor(scale)
        losses[scale], _ = evaluate_model(model, loader, nn.CrossEntropyLoss(), use_extended_model=True)
    model.set_scaling_factor(min(losses, key=losses.__getitem__))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that a scale of zero adds nothing
        model.apply_change()
    model.train()


def _fresh(session: Session, step: int) -> Session:
    """A fresh optimizer for what has grown; the schedule goes on where it was."""
    plan = session.plan
    optimizer = torch.optim.AdamW(session.model.parameters(), lr=plan.lr, weight_decay=plan.weight_decay)
    later = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda done: plan.factor(step + done))
    return replace(session, optimizer=optimizer, scheduler=later)


def adapting_rows(folder: Path, first: Plan, plan: Plan, seed: int) -> list[Row]:
    """All arms of one seed of adapting."""
    whole = fashion(folder)
    before, task = _classes(whole, range(5)), _classes(whole, range(5, 10))
    host = train(partial(image_mlp, 128, 128), before.split, first, seed).model
    state = {name: value.clone() for name, value in host.state_dict().items()}
    run = Adapting(state, task, plan, seed)
    rows = [
        measured("as it was", Trained(run.host(), 0, 0.0), task, seed),
        *(run.lora(rank) for rank in RANKS),
        run.esper(LORA, [Recipe.of("lora", rank=rank) for rank in RANKS]),
        run.esper(GROWN, None),
        run.fine_tuned(),
    ]
    return [msgspec.structs.replace(row, arm=f"adapting: {row.arm}") for row in rows]


def _classes(task: Task, wanted: range) -> Task:
    """The rows of some classes."""

    def of(rows: Rows) -> Rows:
        chosen = (rows.y >= wanted.start) & (rows.y < wanted.stop)
        return Rows(rows.x[chosen], rows.y[chosen])

    return Task(Split(of(task.split.train), of(task.split.held_out)), of(task.test))


@dataclass(frozen=True)
class Adapting:
    """A trained host and what it is to learn next."""

    state: dict[str, Tensor]
    task: Task
    plan: Plan
    seed: int

    def host(self) -> nn.Module:
        """A fresh copy of the trained host."""
        model = image_mlp(128, 128)
        model.load_state_dict(self.state)
        return model

    def fine_tuned(self) -> Row:
        """Everything learns."""
        return _static("full fine-tuning", self.host, Run(self.task, self.plan, self.seed))

    def lora(self, rank: int) -> Row:
        """peft's LoRA in all three layers, merged in the end."""
        from peft import LoraConfig, get_peft_model

        torch.manual_seed(self.seed)
        config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=["l1", "l2", "l3"])
        model = get_peft_model(self.host(), config)
        num_trained = num_params(model)
        session = prepared(model, self.task.split, self.plan, self.seed)
        start = process_time()
        for x, y in batches(self.task.split.train, self.plan, self.seed):
            training_step(session, x, y)
        trained = Trained(model.merge_and_unload(), 0, process_time() - start)
        row = measured(f"peft LoRA, rank {rank}", trained, self.task, self.seed)
        return msgspec.structs.replace(row, params=num_trained)

    def esper(self, arm: str, recipes: Sequence[Recipe] | None) -> Row:
        """Grafts learn; the host's gradients are read and then forgotten, so that its weights stay."""
        torch.manual_seed(self.seed)
        session = prepared(self.host(), self.task.split, self.plan, self.seed)
        growing, own = grower(session, recipes=recipes), tuple(session.model.parameters())
        start = process_time()
        for x, y in batches(self.task.split.train, self.plan, self.seed):
            self._step_of_grafts(session, own, x, y)
            growing.step(partial(loss_of, session.model, x, y))
        num_trained = num_params(session.model) - sum(parameter.numel() for parameter in own)
        trained = Trained(growing.finish(), 0, process_time() - start, growing)
        row = measured(arm, trained, self.task, self.seed, note=history_note(trained))
        return msgspec.structs.replace(row, params=num_trained)

    @staticmethod
    def _step_of_grafts(session: Session, own: tuple[nn.Parameter, ...], x: Tensor, y: Tensor) -> None:
        session.optimizer.zero_grad()
        loss_of(session.model, x, y).backward()
        for parameter in own:
            parameter.grad = None
        session.optimizer.step()
        session.scheduler.step()


def table(rows: list[Row]) -> Table:
    """All arms, and what lies between each peer and Esper."""
    notes: list[str] = []
    for name in dict.fromkeys(row.arm.partition(": ")[0] for row in rows):
        own = [row for row in rows if row.arm.startswith(f"{name}: ")]
        notes += difference_notes(own, f"{name}: {GROWN}")
    return Table(
        name="peers",
        title="Peers, same data, same steps: gromo and peft's LoRA",
        columns=COLUMNS,
        cells=[_cells(arm, group) for arm, group in by_arm(rows).items()],
        notes=notes + [f"seed {row.seed}, {row.arm}: {row.note}" for row in rows if row.note],
        rows=[msgspec.to_builtins(row) for row in rows],
    )


def _cells(arm: str, rows: list[Row]) -> list[str]:
    accuracy, sd = mean_sd([row.test_accuracy for row in rows])
    params, _ = mean_sd([row.params for row in rows])
    return [
        arm,
        str(len(rows)),
        f"{accuracy:.4f} ± {sd:.4f}",
        f"{mean_sd([row.test_loss for row in rows])[0]:.3f}",
        "0" if arm.endswith("as it was") else f"{params:,.0f}",
        f"{mean_sd([row.seconds for row in rows])[0]:,.1f}",
    ]


def jobs(given: Options) -> list[Job]:
    """Every case and seed."""
    if given.quick:
        return [Job("quick", partial(growing_rows, "digits from 8-8", given.data, Plan(40), 0))]
    adapting = partial(adapting_rows, given.data, Plan(800), Plan(800))
    found = [Job(f"adapting, seed {seed}", partial(adapting, seed)) for seed in given.seeds]
    for name, case in CASES.items():
        found += [
            Job(f"{name}, seed {s}", partial(growing_rows, name, given.data, case.plan, s))
            for s in given.seeds
        ]
    return found


def require_peers() -> None:
    """Ends the program where one of them is not installed."""
    missing = [name for name in ("gromo", "peft") if importlib.util.find_spec(name) is None]
    if missing:
        raise SystemExit(f"{' and '.join(missing)} not found: pip install -c constraints.txt -e .[dev]")


def main() -> None:
    """Run all arms and publish the table."""
    require_peers()
    given = options("peers", "Peers on the same data: gromo and peft's LoRA.")
    rows = run_jobs(jobs(given), num_workers=given.jobs)
    publish(table(rows), command=given.command, stored=not given.quick)


if __name__ == "__main__":
    main()
