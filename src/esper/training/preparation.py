"""How rows of a table become tensors: learned from the training rows, kept as data.

Knows no files and no model.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

import msgspec
import numpy as np
import numpy.typing as npt

from esper.errors import DataError

Kind = Literal["classification", "regression"]
Column = npt.NDArray[Any]
"""Numbers as float64 with NaN where missing, words as objects: ``str``, or ``None`` where missing."""

Table = Mapping[str, Column]
Floats = npt.NDArray[np.float32]

MAX_CATEGORIES = 64
"""Categories of one column that get an input of their own, most frequent first; the others share one."""


class Number(msgspec.Struct, frozen=True, tag=True):
    """A numeric column: missing values become the median, then mean 0 and deviation 1.

    One input more if any miss.
    """

    name: str
    median: float
    mean: float
    scale: float
    has_missing: bool

    @classmethod
    def learn(cls, name: str, values: Column) -> Self:
        """From training values, at least two of them different."""
        known = values[np.isfinite(values)]
        median = float(np.median(known))
        filled = np.where(np.isfinite(values), values, median)
        return cls(name, median, float(filled.mean()), float(filled.std()), len(known) < len(values))

    @property
    def width(self) -> int:
        """Number of inputs."""
        return 1 + self.has_missing

    def encode(self, values: Column) -> Floats:
        """Inputs ``(N, width)``."""
        known = np.isfinite(values)
        scaled = (np.where(known, values, self.median) - self.mean) / self.scale
        parts = [scaled, ~known] if self.has_missing else [scaled]
        return np.stack(parts, axis=1).astype(np.float32)

    def remarks(self, values: Column) -> list[str]:
        """What is unusual about new values, in words."""
        num_missing = int((~np.isfinite(values)).sum())
        if num_missing and not self.has_missing:
            return [
                f"column {self.name}: {num_missing:,} missing values; the median {self.median:g} stands in"
            ]
        return []


class Category(msgspec.Struct, frozen=True, tag=True):
    """A column of words: one input per frequent word.

    All others, and words never seen, share the last input.
    """

    name: str
    values: tuple[str, ...]

    @classmethod
    def learn(cls, name: str, values: Column) -> Self:
        """From training values; a missing value is a word of its own."""
        counts = Counter(_word(value) for value in values)
        frequent = sorted(counts, key=lambda word: (-counts[word], word))[:MAX_CATEGORIES]
        return cls(name, tuple(sorted(frequent)))

    @property
    def width(self) -> int:
        """Number of inputs."""
        return len(self.values) + 1

    def codes(self, values: Column) -> npt.NDArray[np.int64]:
        """Position of each value among ``values``; ``len(values)`` for all others."""
        position = {word: index for index, word in enumerate(self.values)}
        return np.array([position.get(_word(value), len(position)) for value in values], dtype=np.int64)

    def encode(self, values: Column) -> Floats:
        """Inputs ``(N, width)``."""
        hot = np.zeros((len(values), self.width), dtype=np.float32)
        hot[np.arange(len(values)), self.codes(values)] = 1
        return hot

    def remarks(self, values: Column) -> list[str]:
        """What is unusual about new values, in words."""
        if len(self.values) >= MAX_CATEGORIES:
            return []
        unseen = sorted({_word(value) for value in values} - set(self.values))
        if not unseen:
            return []
        shown = ", ".join(unseen[:3]) + (", …" if len(unseen) > 3 else "")
        return [f"column {self.name}: {len(unseen):,} × never seen in training, taken as 'other': {shown}"]


class Target(msgspec.Struct, frozen=True):
    """What is predicted: one of ``classes``, or a number with the mean and deviation of the training rows."""

    name: str
    kind: Kind
    classes: tuple[str, ...] = ()
    mean: float = 0.0
    scale: float = 1.0

    @property
    def width(self) -> int:
        """Number of outputs of the network."""
        return len(self.classes) if self.kind == "classification" else 1

    def encode(self, values: Column) -> npt.NDArray[Any]:
        """Class numbers (int64), or standardised numbers ``(N, 1)`` (float32)."""
        if self.kind == "regression":
            return np.asarray((values - self.mean) / self.scale, dtype=np.float32)[:, None]
        position = {label: index for index, label in enumerate(self.classes)}
        return np.array([position[label_of(value)] for value in values], dtype=np.int64)

    def decode(self, outputs: npt.NDArray[Any]) -> Column:
        """Predictions ``(N,)`` from network outputs ``(N, width)``."""
        if self.kind == "regression":
            return np.asarray(outputs[:, 0].astype(np.float64) * self.scale + self.mean)
        return np.asarray(np.array(self.classes, dtype=object)[outputs.argmax(axis=1)])


class Preparation(msgspec.Struct, frozen=True):
    """The columns that are used and how, the target, and notes on what was left out.

    With ``decimal_commas`` numbers that are text may have a comma for a decimal point.
    """

    columns: tuple[Number | Category, ...]
    target: Target
    notes: tuple[str, ...] = ()
    decimal_commas: bool = False

    @property
    def width(self) -> int:
        """Number of inputs of the network."""
        return sum(column.width for column in self.columns)

    def encode(self, table: Table) -> Floats:
        """Inputs ``(N, width)``.

        Raises ``DataError`` when a column is missing or holds words instead of numbers.
        """
        missing = [column.name for column in self.columns if column.name not in table]
        if missing:
            raise DataError(f"the table lacks columns that the network was trained on: {', '.join(missing)}")
        return np.concatenate([column.encode(_typed(column, table)) for column in self.columns], axis=1)

    def remarks(self, table: Table) -> list[str]:
        """What is unusual about a new table, in words; the predictions are made all the same."""
        found = [remark for column in self.columns for remark in column.remarks(_typed(column, table))]
        known = {column.name for column in self.columns} | {self.target.name}
        strange = [name for name in table if name not in known]
        if strange and not self.notes:
            found.append(f"columns that the network does not use: {', '.join(strange)}")
        return found


def label_of(value: Any) -> str:
    """A class as text: whole numbers without a decimal point."""
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        return str(int(value))
    return str(value)


def is_words(values: Column) -> bool:
    """Whether a column holds words rather than numbers."""
    return values.dtype == object


def is_number(word: str) -> bool:
    """Whether a word can be read as a number."""
    try:
        float(word)
    except ValueError:
        return False
    return True


def strays(values: Column) -> list[str]:
    """Words that stand in a column which for the most part holds numbers; none in any other column."""
    if not is_words(values):
        return []
    known = [value for value in values if value is not None]
    words = [value for value in known if not is_number(value)]
    return words if 2 * len(words) < len(known) else []


def num_different(values: Sequence[Any] | Column) -> int:
    """Number of different values, missing ones not counted."""
    return len({value for value in values if value is not None and value == value})


def _typed(column: Number | Category, table: Table) -> Column:
    values = table[column.name]
    if isinstance(column, Category):
        return values if is_words(values) else np.array([_label_or_none(v) for v in values], dtype=object)
    if not is_words(values):
        return values
    strange = [value for value in values if value is not None and not is_number(value)]
    if not strange:
        return np.array([np.nan if value is None else float(value) for value in values])
    raise DataError(
        f"column {column.name} held numbers in training, but here there is {strange[0]!r} ({len(strange):,} of "
        f"{len(values):,} values are no numbers); mend them, or leave them empty: a missing value is understood"
    )


def _label_or_none(value: float) -> str | None:
    return label_of(value) if np.isfinite(value) else None


def _word(value: str | None) -> str:
    return "" if value is None else value
