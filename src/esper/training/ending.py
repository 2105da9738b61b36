"""What is left when the last step is done: the scores, the finished network on disk, the record of the run.

The one place where a test set is read. It runs after growth has ended, and hands nothing back to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from torch import Tensor, nn

from esper.errors import RunError
from esper.events import Attached
from esper.growth import checkpoint
from esper.growth.saved import KIND
from esper.training.data import Rows, take
from esper.training.graph import Description, rebuild
from esper.training.network import layers, num_macs, num_params
from esper.training.run import Record, Result, RunFolder
from esper.training.task import Task
from esper.training.trainer import Trainer
from esper.training.twin import described

NUM_COMPARED = 16


def conclude(trainer: Trainer) -> Record:
    """Fold, score, store; the record of a finished run.

    Call it when ``train`` says that all steps are done.
    """
    task, run = trainer.task, trainer.run
    start = task.make_model(run.load().seed)
    model = trainer.finish().eval()
    held_out_loss, held_out = task.evaluate(model, task.sets.held_out)
    test_loss, test, baselines = _read_test(task, model)
    rows = task.sets.held_out
    result = Result(
        metric=task.score.name if task.score else "loss",
        test=test if test is not None else test_loss,
        held_out=held_out if held_out is not None else held_out_loss,
        test_loss=test_loss,
        params_start=num_params(start),
        params_end=num_params(model),
        macs_start=num_macs(start, rows),
        macs_end=num_macs(model, rows),
        seconds=round(trainer.seconds, 2),
        baselines=baselines,
    )
    store_model(run, model, rows, record=[] if trainer.grower is None else trainer.grower.record)
    return run.change(
        status="finished",
        result=result,
        network_after=layers(model, rows, grafted=_sites(run)),
    )


def store_model(
    run: RunFolder, model: nn.Module, rows: Rows, *, record: Sequence[dict[str, Any]] = ()
) -> None:
    """Write ``model/``: what ``esper.load`` reads and, where the network can be written as a graph, that graph.

    A graph whose outputs on ``rows`` are not those of the network is not kept.
    """
    grown = {"kind": KIND, "record": list(record), "model": dict(model.state_dict())}
    try:
        description, state = described(model, take(rows, slice(0, NUM_COMPARED))[:-1])
        tree = {"graph": msgspec.to_builtins(description), "state": state}
    except RunError as error:
        tree = {"graph": None, "reason": str(error), "state": grown["model"]}
    checkpoint.write(run.model, grown | tree)


def load_model(run: RunFolder) -> nn.Module:
    """The finished network of a run, in eval mode.

    Raises ``RunError`` when there is none that can be rebuilt.
    """
    return rebuild(*load_description(run))


def load_description(run: RunFolder) -> tuple[Description, dict[str, Tensor]]:
    """The finished network of a run as plain data, and its weights.

    Raises ``RunError`` when there is none that can be rebuilt.
    """
    if run.load().status != "finished":
        raise RunError(f"run {run.name} is not finished; go on with: esper train --resume {run.name}")
    tree = checkpoint.read(run.model)
    if tree["graph"] is None:
        raise RunError(
            f"{tree['reason']}; its weights are there: esper export {run.name} --format safetensors"
        )
    return msgspec.convert(tree["graph"], Description), tree["state"]


def _read_test(task: Task, model: nn.Module) -> tuple[float, float | None, dict[str, float]]:
    loss, metric = task.evaluate(model, task.sets.test.open())
    return loss, metric, dict(task.references() if task.references else {})


def _sites(run: RunFolder) -> frozenset[str]:
    """Paths in the finished network under which a graft has been folded."""
    return frozenset(event.path for event in run.read_events() if isinstance(event, Attached))
