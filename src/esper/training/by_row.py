"""Rows as dictionaries, to inputs of a network and back: what exported code carries along, word for word.

Knows torch only. ``preparation`` is the JSON file that an export writes beside a network for tables.
"""

from __future__ import annotations

import math
from typing import Any

import torch


def encode(rows: Any, preparation: Any) -> Any:
    """Inputs ``(N, width)`` for rows such as those of ``csv.DictReader``; every column of the training is needed."""
    columns, commas = preparation["columns"], preparation.get("decimal_commas", False)
    inputs = [[part for column in columns for part in _parts(row, column, commas)] for row in rows]
    return torch.tensor(inputs, dtype=torch.float64).float()


def decode(outputs: Any, preparation: Any) -> list[Any]:
    """Predictions from outputs ``(N, width)``: words for classes, else numbers in the units of the target."""
    target = preparation["target"]
    if target["kind"] == "classification":
        return [target["classes"][index] for index in outputs.argmax(dim=1).tolist()]
    return [value * target["scale"] + target["mean"] for value in outputs[:, 0].tolist()]


def _parts(row: Any, column: Any, commas: Any) -> list[float]:
    """The inputs that one value becomes."""
    value = row[column["name"]]
    if isinstance(value, str) and _is_missing(value):
        value = None
    if column["type"] == "Number":
        if commas and isinstance(value, str):
            value = value.replace(",", ".")
        number = math.nan if value is None else float(value)
        known = math.isfinite(number)
        scaled = ((number if known else column["median"]) - column["mean"]) / column["scale"]
        return [scaled, float(not known)] if column["has_missing"] else [scaled]
    word = _word(value)
    others = float(word not in column["values"])
    return [*(float(word == known) for known in column["values"]), others]


def _is_missing(text: str) -> bool:
    """What files hold where there is no value, as pandas knows it."""
    marks = "|?|.|-|#N/A|#N/A N/A|#NA|-1.#IND|-1.#QNAN|-NaN|-nan|1.#IND|1.#QNAN|<NA>|N/A|NA|NULL|NaN|None|n/a|nan|null"
    return text in marks.split("|")


def _word(value: Any) -> str:
    """A category as text: whole numbers without a decimal point."""
    if value is None or value != value:
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return {"true": "True", "TRUE": "True", "false": "False", "FALSE": "False"}.get(str(value), str(value))
