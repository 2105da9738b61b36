"""Tables: what is learned from columns, what is refused, and what comes back at prediction time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from esper.controller.judge import Judge
from esper.errors import DataError
from esper.training.csv_file import read_csv, with_columns
from esper.training.preparation import MAX_CATEGORIES, Category, Number, Preparation, Table, strays
from esper.training.tables import ROWS_TO_GROW, Cut, table_task

NUM_ROWS = 200


def words(*values: str | None) -> Any:
    column = np.empty(len(values), dtype=object)
    column[:] = values
    return column


def houses() -> dict[str, Any]:
    generator = np.random.default_rng(0)
    area = generator.uniform(50, 200, NUM_ROWS)
    year = generator.integers(1900, 2020, NUM_ROWS).astype(float)
    year[::7] = np.nan
    city = words(*generator.choice(["Bern", "Basel", "Chur"], NUM_ROWS))
    price = 3 * area + 50 * (city == "Chur") + generator.normal(0, 5, NUM_ROWS)
    return {"area": area, "year": year, "city": city, "price": price}


def prepared(table: Table, target: str = "price") -> Preparation:
    preparation = table_task(table, target, name="t").preparation
    assert preparation is not None
    return preparation


def test_numbers_are_standardised_and_gaps_are_marked() -> None:
    column = Number.learn("year", np.array([1.0, 3.0, np.nan, 5.0]))
    encoded = column.encode(np.array([3.0, np.nan]))
    assert encoded.tolist() == [[0.0, 0.0], [0.0, 1.0]]
    train = column.encode(np.array([1.0, 3.0, np.nan, 5.0]))[:, 0]
    assert train.mean() == pytest.approx(0, abs=1e-6)
    assert train.std() == pytest.approx(1, abs=1e-6)


def test_frequent_words_get_an_input_each_and_all_others_share_one() -> None:
    many = words(*[f"w{i}" for i in range(2 * MAX_CATEGORIES)], "often", "often", None, None)
    column = Category.learn("city", many)
    assert column.width == MAX_CATEGORIES + 1
    encoded = column.encode(words("often", None, "never seen"))
    assert encoded.sum(axis=1).tolist() == [1, 1, 1]
    assert encoded[2, -1] == 1
    assert not encoded[:2, -1].any()


def test_the_test_rows_teach_nothing() -> None:
    """Moving the values of test rows changes neither the preparation nor the training rows."""
    table = houses()
    task = table_task(table, "price", name="t", seed=3)
    order = np.random.default_rng(3).permutation(NUM_ROWS)
    changed = {**table, "area": table["area"].copy()}
    changed["area"][order[: NUM_ROWS // 5]] += 1_000
    other = table_task(changed, "price", name="t", seed=3)
    assert other.preparation == task.preparation
    assert torch.equal(other.sets.train[0], task.sets.train[0])
    assert not torch.equal(other.sets.test.open()[0], task.sets.test.open()[0])


def test_a_table_of_the_size_that_messages_name_is_the_smallest_that_can_grow() -> None:
    enough = Judge().min_examples
    assert len(Cut.draw(ROWS_TO_GROW, 0).held_out) == enough
    assert len(Cut.draw(ROWS_TO_GROW - 2, 0).held_out) < enough


def test_the_kind_is_inferred_and_can_be_said() -> None:
    table = houses()
    assert prepared(table).target.kind == "regression"
    assert prepared(table, "city").target.classes == ("Basel", "Bern", "Chur")
    stars = {**table, "stars": np.arange(NUM_ROWS) % 5.0}
    assert prepared(stars, "stars").target.classes == ("0", "1", "2", "3", "4")
    asked = table_task(stars, "stars", name="t", kind="regression").preparation
    assert asked is not None
    assert asked.target.kind == "regression"


def test_useless_columns_are_left_out_with_a_reason() -> None:
    table = {
        **houses(),
        "id": words(*[f"house {i}" for i in range(NUM_ROWS)]),
        "planet": words(*["earth"] * NUM_ROWS),
        "nothing": np.full(NUM_ROWS, np.nan),
        "Unnamed: 0": np.arange(NUM_ROWS, dtype=float),
    }
    preparation = prepared(table)
    assert [column.name for column in preparation.columns] == ["area", "year", "city"]
    assert "id is left out: nearly every row has a word of its own" in " ".join(preparation.notes)


def test_rows_without_a_target_are_left_out_and_said() -> None:
    table = houses()
    table["price"][:10] = np.nan
    task = table_task(table, "price", name="t")
    assert sum(task.sets.sizes.values()) == NUM_ROWS - 10
    assert task.preparation is not None
    assert "10 rows without a value of 'price' are left out" in task.preparation.notes


@pytest.mark.parametrize(
    ("change", "target", "options", "message"),
    [
        ({}, "prize", {}, "no column 'prize'; did you mean one of: price"),
        ({}, "xyzzy", {}, "did you mean one of: area, year, city, price"),
        ({"price": np.ones(NUM_ROWS)}, "price", {}, "'1' in every row; at least two classes"),
        ({"price": np.ones(NUM_ROWS)}, "price", {"kind": "regression"}, "nothing to predict"),
        ({"price": np.full(NUM_ROWS, np.nan)}, "price", {}, "0 rows have a value"),
        ({}, "city", {"kind": "regression"}, "holds words such as"),
        ({}, "price", {"kind": "classification"}, "use --kind regression"),
        ({"price": np.r_[np.inf, np.arange(NUM_ROWS - 1.0)]}, "price", {}, "infinite"),
        (dict.fromkeys(["area", "year", "city"], np.ones(NUM_ROWS)), "price", {}, "no column is"),
    ],
)  # fmt: skip
def test_a_table_that_cannot_be_learned_from_says_why(
    change: dict[str, Any], target: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        table_task({**houses(), **change}, target, name="t", **options)


def test_new_tables_may_lack_no_column_and_hold_no_words_for_numbers() -> None:
    preparation = prepared(houses())
    table = houses()
    del table["year"], table["city"]
    with pytest.raises(DataError, match=r"lacks columns .*: year, city"):
        preparation.encode(table)
    area = words("1", None, "big", *["2"] * (NUM_ROWS - 3))
    with pytest.raises(DataError, match=r"held numbers .* 'big' \(1 of 200 values .* leave them empty"):
        preparation.encode({**houses(), "area": area})


def test_what_is_new_at_prediction_time_is_remarked() -> None:
    table = {**houses(), "city": words(*["Thun"] * NUM_ROWS), "area": np.full(NUM_ROWS, np.nan)}
    remarks = " ".join(prepared(houses()).remarks(table))
    assert "column city: 1 × never seen in training, taken as 'other': Thun" in remarks
    assert "column area: 200 missing values" in remarks
    assert prepared(houses()).remarks(houses()) == []


def test_predictions_come_back_in_the_units_of_the_target() -> None:
    target = prepared(houses()).target
    values = houses()["price"]
    assert np.allclose(target.decode(target.encode(values)), values, rtol=1e-5)
    classes = prepared(houses(), "city").target
    assert (classes.decode(np.eye(3)) == np.array(["Basel", "Bern", "Chur"])).all()


def test_the_references_are_a_linear_and_a_boosted_model() -> None:
    references = table_task(houses(), "price", name="t").references
    assert references is not None
    scores = references()
    assert set(scores) == {"linear", "gradient-boosted"}
    assert scores["linear"] > 0.9


# Files


def file(folder: Path, content: str | bytes) -> Path:
    path = folder / "data.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_a_file_is_read_with_its_own_separator(tmp_path: Path, separator: str) -> None:
    text = "a,b,c\n1,x,true\n,y,false\n2.5,,true\n".replace(",", separator)
    table = read_csv(file(tmp_path, text))
    assert np.array_equal(table["a"], [1, np.nan, 2.5], equal_nan=True)
    assert table["b"].tolist() == ["x", "y", None]
    assert table["c"].tolist() == ["True", "False", "True"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a,b\n1,2\n1,2,3\n", r"line 3 has 3 fields, the header 2"),
        ("a,b\n1\n", r"line 2 has 1 fields, the header 2"),
        ("a,b\n", "no rows below its header"),
        ("", "is empty"),
        ("a,a\n1,2\n", "twice: a"),
        ("a,\n1,2\n", "without a name"),
        ("a,b\n1,Zürich\n".encode("cp1252"), "is not utf-8 .*try --encoding cp1252"),
        ("a,b\n1,2\n".encode("utf-16"), "try --encoding utf-16"),
    ],
)
def test_a_file_that_is_no_table_says_where_and_what_to_do(
    tmp_path: Path, content: Any, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        read_csv(file(tmp_path, content))


def test_truth_is_spelt_alike_whatever_else_a_column_holds(tmp_path: Path) -> None:
    assert read_csv(file(tmp_path, "a,b\n1,true\n2,false\n"))["b"].tolist() == ["True", "False"]
    mixed = read_csv(file(tmp_path, "a,b\n1,true\n2,FALSE\n3,perhaps\n"))
    assert mixed["b"].tolist() == ["True", "False", "perhaps"]


@pytest.mark.parametrize("gap", ["?", ".", "-", "", "NA"])
def test_a_sign_for_a_gap_does_not_turn_numbers_into_words(tmp_path: Path, gap: str) -> None:
    table = read_csv(file(tmp_path, f"age,price\n31,1\n{gap},2\n-4,3\n"))
    np.testing.assert_array_equal(table["age"], [31.0, np.nan, -4.0])


def test_the_advice_on_encodings_works(tmp_path: Path) -> None:
    path = file(tmp_path, "ort,b\nZürich,2\n".encode("cp1252"))
    assert read_csv(path, encoding="cp1252")["ort"].tolist() == ["Zürich"]
    with pytest.raises(DataError, match="not an encoding that Python knows"):
        read_csv(path, encoding="klingon")


@pytest.mark.parametrize("num_words", [9_000, 20_000])
def test_a_column_of_very_many_words_adds_few_inputs_or_none(num_words: int) -> None:
    who = words(*[f"user {i % num_words}" for i in range(20_000)])
    table = {"who": who, "a": np.arange(20_000) % 3.0, "b": np.arange(20_000) % 7.0}
    assert prepared(table, "b").width in {1, 1 + MAX_CATEGORIES + 1}


def test_added_columns_leave_every_cell_as_it_stands(tmp_path: Path) -> None:
    text = 'id,zip,big,note\n1,00123,9007199254740993,"x,y"\n2,,NA,true\n'
    added = with_columns(file(tmp_path, text), {"price": np.array([1.5, 2.0])})
    assert added == 'id,zip,big,note,price\n1,00123,9007199254740993,"x,y",1.5\n2,,NA,true,2.0\n'


def test_a_decimal_comma_is_understood_and_kept_where_it_does_not_separate(tmp_path: Path) -> None:
    path = file(tmp_path, "a;b;c\n1,5;x,y;3\n-2;z;\n;z;-,5\n")
    table = read_csv(path)
    np.testing.assert_array_equal(table["a"], [1.5, -2.0, np.nan])
    np.testing.assert_array_equal(table["c"], [3.0, np.nan, -0.5])
    assert table["b"].tolist() == ["x,y", "z", "z"]
    assert with_columns(path, {"p": np.array([0.25, 1.0, 2.0])}).splitlines()[1] == "1,5;x,y;3;0,25"
    assert read_csv(file(tmp_path, 'a,b\n"1,5",2\n'))["a"].tolist() == ["1,5"]


def test_stray_words_among_numbers_are_noted_with_an_example() -> None:
    ages = [str(20 + i % 50) for i in range(NUM_ROWS)]
    ages[7] = ages[90] = "unknown"
    table = {**houses(), "age": words(*ages)}
    notes = " ".join(prepared(table).notes)
    assert (
        "column age is taken for words: it holds numbers, and 2 × something else, such as 'unknown'" in notes
    )
    assert "write ?" in notes
    assert "column city" not in notes
    many = {**houses(), "age": words(*map(str, range(NUM_ROWS - 1)), "unknown")}
    for options in ({}, {"kind": "regression"}):
        with pytest.raises(DataError, match="such as 'unknown'"):
            table_task(many, "age", name="t", **options)


def test_a_column_of_words_in_which_some_are_numbers_is_no_column_of_numbers() -> None:
    assert strays(words("a", "b", "3")) == []
    assert strays(words("1", "2", None, "b")) == ["b"]
    assert strays(np.array([1.0])) == []
