"""Reads and writes tables as files of separated values. The only file that knows pandas."""

from __future__ import annotations

import csv
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from esper.errors import DataError
from esper.training.preparation import Column, Table

SEPARATORS = ",;\t|"
MISSING = ("?", ".", "-")
"""Taken for a missing value, beside an empty field and what pandas takes for one (NA, NaN, null, None, n/a, …)."""

DECIMAL_COMMA = re.compile(r"[+-]?(\d+(,\d*)?|,\d+)([eE][+-]?\d+)?")
TRUTHS = {"true": "True", "TRUE": "True", "false": "False", "FALSE": "False"}
"""As pandas writes a column that holds nothing else; one that does must not be read in another way."""


def read_csv(path: Path, *, encoding: str = "utf-8") -> Table:
    """The table in a file with a header line.

    Separator ``,`` ``;`` tab or ``|``, whichever the header has most of; where it is not the comma, numbers may have
    one for a decimal point. ``?``, ``.`` and ``-`` are missing values too.

    Raises ``DataError``, which names the line, for ragged rows, no rows, unnamed or repeated columns and
    bytes that are not of ``encoding``.
    """
    try:
        separator = _check_shape(path, encoding)
        frame = pd.read_csv(path, sep=separator, encoding=encoding, low_memory=False, na_values=MISSING)
    except (UnicodeDecodeError, LookupError) as error:
        raise DataError(_encoding_advice(path, encoding, error)) from error
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    except (pd.errors.ParserError, csv.Error) as error:
        raise DataError(f"{path} is not a table of separated values: {error}") from error
    has_commas = separator != ","
    return {str(name): _column(frame[name], has_commas=has_commas) for name in frame.columns}


def has_decimal_commas(path: Path, *, encoding: str = "utf-8") -> bool:
    """Whether numbers of a table that can be read may have a comma for a decimal point."""
    with path.open(encoding=encoding, newline="") as file:
        return _separator(file.readline()) != ","


def with_columns(source: Path, columns: Table, *, encoding: str = "utf-8") -> str:
    """The table in file ``source`` as text, every cell as it stands there, with ``columns`` added.

    New numbers have a decimal comma where those of the file have one.
    """
    separator = _check_shape(source, encoding)
    frame = pd.read_csv(source, sep=separator, encoding=encoding, dtype=str, keep_default_na=False)
    has_commas = separator != "," and any(frame[name].str.fullmatch(r"[+-]?\d*,\d+").any() for name in frame)
    return str(frame.assign(**columns).to_csv(index=False, sep=separator, decimal="," if has_commas else "."))


def _check_shape(path: Path, encoding: str) -> str:
    """Look at every row's length before pandas guesses; the separator."""
    with path.open(encoding=encoding, newline="") as file:
        separator = _separator(file.readline())
        file.seek(0)
        rows = csv.reader(file, delimiter=separator)
        header = next(rows, [])
        _check_header(path, header)
        num_rows = 0
        for row in rows:
            if row and len(row) != len(header):
                fields = f"{len(row)} fields, the header {len(header)}"
                raise DataError(
                    f"{path}, line {rows.line_num} has {fields}; mend that line, or quote the separator"
                )
            num_rows += bool(row)
    if not num_rows:
        raise DataError(f"{path} has no rows below its header")
    return separator


def _separator(header: str) -> str:
    return max(SEPARATORS, key=header.count)


def _check_header(path: Path, header: list[str]) -> None:
    if not header:
        raise DataError(f"{path} is empty; the first line must name the columns")
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise DataError(f"{path} names a column twice: {', '.join(twice)}")
    if "" in [name.strip() for name in header[1:]]:
        raise DataError(f"{path} has a column without a name in its header")


def _column(values: Any, *, has_commas: bool) -> Column:
    if pd.api.types.is_numeric_dtype(values.dtype) and not pd.api.types.is_bool_dtype(values.dtype):
        return np.asarray(values.to_numpy(dtype=np.float64, na_value=np.nan))
    words = np.empty(len(values), dtype=object)
    words[:] = [None if pd.isna(value) else TRUTHS.get(str(value), str(value)) for value in values]
    if has_commas and all(word is None or DECIMAL_COMMA.fullmatch(word) for word in words):
        return np.array([math.nan if word is None else float(word.replace(",", ".")) for word in words])
    return words


def _encoding_advice(path: Path, encoding: str, error: UnicodeDecodeError | LookupError) -> str:
    if isinstance(error, LookupError):
        return f"{encoding!r} is not an encoding that Python knows; try --encoding utf-8 or cp1252"
    start = path.read_bytes()[:4]
    utf16 = start.startswith((b"\xff\xfe", b"\xfe\xff"))
    other = "utf-16" if utf16 else "cp1252" if encoding != "cp1252" else "latin-1"
    return f"{path} is not {encoding} (byte {error.start}); try --encoding {other}"
