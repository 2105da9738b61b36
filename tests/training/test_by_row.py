"""Rows as dictionaries give the inputs and predictions that columns give."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from esper.training.by_row import decode, encode
from esper.training.csv_file import MISSING, read_csv
from esper.training.preparation import Category, Number, Preparation, Target

NUMBERS = st.floats(-1e6, 1e6) | st.just(math.nan)
WORDS = st.none() | st.sampled_from(["Bern", "Basel", "", "nowhere"])
TARGETS = (
    Target("price", "regression", mean=3.0, scale=2.0),
    Target("price", "classification", classes=("no", "yes", "perhaps")),
)


def prepared(target: Target, *, has_missing: bool = True) -> Preparation:
    columns = (Number("area", 2.0, 3.0, 4.0, has_missing), Category("city", ("", "Basel", "Bern")))
    return Preparation(columns, target)


@given(st.lists(st.tuples(NUMBERS, WORDS), min_size=1), st.booleans())
def test_rows_and_columns_are_encoded_alike(rows: list[tuple[float, str | None]], has_missing: bool) -> None:
    preparation = prepared(TARGETS[0], has_missing=has_missing)
    city = np.empty(len(rows), dtype=object)
    city[:] = [word for _, word in rows]
    inputs = preparation.encode({"area": np.array([number for number, _ in rows]), "city": city})
    found = encode([{"area": a, "city": c} for a, c in rows], msgspec.to_builtins(preparation))
    assert torch.equal(found, torch.from_numpy(inputs))


@given(st.lists(st.lists(st.floats(-9, 9, width=32), min_size=3, max_size=3), min_size=1))
def test_outputs_are_decoded_alike(outputs: list[list[float]]) -> None:
    for target in TARGETS:
        array = np.array(outputs, dtype=np.float32)
        found = decode(torch.from_numpy(array), msgspec.to_builtins(prepared(target)))
        assert found == target.decode(array).tolist()


def test_text_as_files_hold_it_is_understood() -> None:
    preparation: Any = msgspec.to_builtins(prepared(TARGETS[0]))
    texts = [{"area": "7", "city": "Bern"}, {"area": "?", "city": "NA"}]
    values = [{"area": 7.0, "city": "Bern"}, {"area": None, "city": None}]
    assert torch.equal(encode(texts, preparation), encode(values, preparation))
    flags = {"columns": [{"type": "Category", "name": "sunny", "values": ["False", "True"]}]}
    assert encode([{"sunny": "true"}, {"sunny": True}], flags).tolist() == [[0, 1, 0], [0, 1, 0]]
    years = {"columns": [{"type": "Category", "name": "year", "values": ["1990"]}]}
    assert encode([{"year": 1990}, {"year": 1990.0}, {"year": "1990"}], years)[:, 0].tolist() == [1, 1, 1]


WITHOUT_VALUE = [
    "",
    *MISSING,
    "NA",
    "N/A",
    "n/a",
    "#N/A",
    "<NA>",
    "nan",
    "-nan",
    "NaN",
    "null",
    "NULL",
    "None",
]


@pytest.mark.parametrize("word", [*WITHOUT_VALUE, "none", "na", "Null", "true", "FALSE"])
def test_a_word_is_missing_where_it_is_in_a_file(tmp_path: Path, word: str) -> None:
    preparation = Preparation((Category("city", ("", "Bern", "none", "na", "True", "False")),), TARGETS[0])
    (tmp_path / "t.csv").write_text(f"city,other\nBern,1\n{word},2\n")
    expected = preparation.encode(read_csv(tmp_path / "t.csv"))
    rows = [{"city": "Bern"}, {"city": word}]
    assert torch.equal(encode(rows, msgspec.to_builtins(preparation)), torch.from_numpy(expected))


def test_a_comma_is_a_decimal_point_only_where_the_table_had_them() -> None:
    columns = (Number("area", 2.0, 3.0, 4.0, has_missing=False),)
    with_commas = msgspec.to_builtins(Preparation(columns, TARGETS[0], decimal_commas=True))
    assert encode([{"area": "9,5"}, {"area": "9.5"}, {"area": 9.5}], with_commas).unique().numel() == 1
    with pytest.raises(ValueError, match="9,5"):
        encode([{"area": "9,5"}], msgspec.to_builtins(Preparation(columns, TARGETS[0])))
