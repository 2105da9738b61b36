"""How far diabetes goes within a year, from ten measurements: a table that scikit-learn ships."""

from __future__ import annotations

from esper.training.scikit import diabetes
from esper.training.tables import table_task
from esper.training.task import Task


def task(seed: int) -> Task:
    """442 rows, ten numbers, a number to predict."""
    return table_task(diabetes(), "progression", name="diabetes", seed=seed)
