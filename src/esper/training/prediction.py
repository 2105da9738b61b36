"""Predictions of a finished run for the rows of a new table."""

from __future__ import annotations

import msgspec
import numpy as np
import torch

from esper.errors import DataError, RunError
from esper.growth import checkpoint
from esper.training.ending import load_model
from esper.training.preparation import Column, Preparation, Table
from esper.training.run import RunFolder

FOLDER = "preparation"


def store_preparation(run: RunFolder, preparation: Preparation) -> None:
    """Keep with the run how its table was read."""
    checkpoint.write(run.path / FOLDER, msgspec.to_builtins(preparation))


def prepares_rows(run: RunFolder) -> bool:
    """Whether a run was trained on a table."""
    return (run.path / FOLDER).is_dir()


def load_preparation(run: RunFolder) -> Preparation:
    """How the table of a run was read. Raises ``RunError`` when it was not trained on a table."""
    if not prepares_rows(run):
        raise RunError(f"run {run.name} was not trained on a table; esper predict needs one that was")
    return msgspec.convert(checkpoint.read(run.path / FOLDER), Preparation)


def predict(run: RunFolder, table: Table) -> tuple[dict[str, Column], list[str]]:
    """Column ``<target>_predicted`` (and ``_probability`` for classes) for ``table``, and remarks in words.

    Numbers have seven figures, which is what the network computes with.
    """
    preparation = load_preparation(run)
    inputs = preparation.encode(table)
    if not len(inputs):
        raise DataError("the table has no rows to predict")
    model = load_model(run)
    with torch.no_grad():
        outputs = model(torch.from_numpy(inputs))
    name = preparation.target.name
    predicted = preparation.target.decode(outputs.numpy())
    if preparation.target.kind == "regression":
        predicted = np.array([float(f"{value:.7g}") for value in predicted])
        return {f"{name}_predicted": predicted}, preparation.remarks(table)
    best = outputs.double().softmax(dim=1).max(dim=1).values.numpy()
    columns = {f"{name}_predicted": predicted, f"{name}_probability": np.round(best, 4)}
    return columns, preparation.remarks(table)
