"""Peers on the same data for the same number of steps: gromo, which grows MLPs and CNNs, and peft's LoRA as an adapter.

**Growing** (MNIST-1D from MLP 32-32, digits from MLP 8-8 and, as images, from a CNN of four convolutions). gromo grows
as its tutorial does (see ``benchmarks.gromo_nets``). Esper runs as in the other benchmarks, once with widening alone
(the same kind of move) and once with the recipes of ``benchmarks.mnist1d``, for the CNN with those that are offered by
default; it also reads the held-out rows, which gromo has no use for. gromo's sizes from scratch say what its growth is
worth beside its size. The runs are short: 2,000 and 1,000 steps.

**Adapting** (Fashion-MNIST, MLP 128-128). The net is trained on the classes 0 to 4, then shown the classes 5 to 9 only,
over which it is tested. LoRA and Esper leave its weights alone and train what they add; Esper chooses where and, among
what it is offered, what. Fine-tuning trains everything. Optimizer (AdamW), learning rate and schedule are the same
everywhere; none was tuned for anybody. Parameters are those that the arm has trained.

gromo and peft are among the requirements of development only.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from time import process_time

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
from benchmarks.gromo_nets import Peer, grown_cnn, grown_mlp
from benchmarks.growers import WIDENING, by_rules, grower, whole_catalogue
from benchmarks.networks import image_mlp, mlp, num_params, staged_cnn
from benchmarks.paired import mean_sd
from benchmarks.pool import Job, run_jobs
from benchmarks.summary import by_arm, difference_notes
from benchmarks.table import Table, publish
from esper import Grower, Recipe

COLUMNS = ["arm", "n", "test accuracy", "test loss", "trained parameters", "CPU seconds"]
GROMO, WIDENED, GROWN, LORA = "gromo", "Esper, widening", "Esper", "Esper, grafts of low rank"
RANKS = (4, 16)


@dataclass(frozen=True)
class Case:
    """A task, the net that growth starts from, by its hidden widths, and how gromo and Esper grow it."""

    task: Callable[[Path, int], Task]
    build: Callable[[tuple[int, ...]], nn.Module]
    widths: tuple[int, ...]
    peer: Callable[[tuple[int, ...], Rows, Plan, int], Peer]
    growing: Growing
    plan: Plan


def vector_net(inputs: int, widths: tuple[int, ...]) -> nn.Module:
    """An MLP with these hidden widths."""
    return mlp((inputs, *widths, 10))


def image_digits(seed: int) -> Task:
    """The digits as images ``(N, 1, 8, 8)``."""
    task = digits(seed)

    def image(rows: Rows) -> Rows:
        return Rows(rows.x.view(-1, 1, 8, 8), rows.y)

    return Task(Split(image(task.split.train), image(task.split.held_out)), image(task.test))


CASES = {
    "MNIST-1D from 32-32": Case(
        lambda folder, _: mnist1d(folder),
        partial(vector_net, 40),
        (32, 32),
        grown_mlp,
        by_rules,
        Plan(2_000),
    ),
    "digits from 8-8": Case(
        lambda _, seed: digits(seed), partial(vector_net, 64), (8, 8), grown_mlp, by_rules, Plan(1_000)
    ),
    "digits from a CNN 4-4-4-4": Case(
        lambda _, seed: image_digits(seed),
        partial(staged_cnn, side=8),
        (4, 4, 4, 4),
        grown_cnn,
        whole_catalogue,
        Plan(1_000),
    ),
}


def growing_rows(name: str, folder: Path, plan: Plan, seed: int) -> list[Row]:
    """All arms of one seed of one case of growing."""
    case = CASES[name]
    task, start = case.task(folder, seed), partial(case.build, case.widths)
    run = Run(task, plan, seed)
    peer = case.peer(case.widths, task.split.train, plan, seed)
    note = "-".join(map(str, peer.widths))
    rows = [
        measured(GROMO, Trained(peer.model, 0, peer.seconds), task, seed, note=note),
        _static(f"{GROMO}'s sizes from scratch", partial(case.build, peer.widths), run),
        _grown(WIDENED, widening, start, run),
        _grown(GROWN, case.growing, start, run),
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
