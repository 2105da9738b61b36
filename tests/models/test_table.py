"""The page has a row for every family and for nothing else; the families' own tests compare the rows."""

from __future__ import annotations

from models.table import families, rows_of_page


def test_the_page_has_one_row_a_family() -> None:
    names = [line.split(" | ")[0].removeprefix("| ") for line in rows_of_page()]
    assert names == [family.name for family in families()]
