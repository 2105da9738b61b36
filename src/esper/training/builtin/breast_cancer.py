"""Malignant or benign, from 30 measurements: a table that scikit-learn ships."""

from __future__ import annotations

from esper.training.scikit import breast_cancer
from esper.training.tables import table_task
from esper.training.task import Task


def task(seed: int) -> Task:
    """569 rows, 30 numbers, two classes."""
    return table_task(breast_cancer(), "diagnosis", name="breast-cancer", seed=seed)
