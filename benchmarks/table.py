"""Prints a table, stores it as JSON and in its section of the README. Does not know what is in it."""

from __future__ import annotations

import datetime
import os
import platform
import re
from pathlib import Path
from typing import Any

import msgspec
import torch

HERE = Path(__file__).parent
RESULTS = HERE / "results"
README = HERE / "README.md"


class Table(msgspec.Struct, frozen=True, kw_only=True):
    """One published figure: ``cells`` one list a row, ``rows`` the raw records behind them."""

    name: str
    title: str
    columns: list[str]
    cells: list[list[str]]
    notes: list[str] = []
    rows: list[dict[str, Any]] = []


class Published(msgspec.Struct, frozen=True, kw_only=True):
    """A table with how, when and where it was made."""

    table: Table
    command: str
    date: str
    machine: str


def machine() -> str:
    """Processor model, visible cores, Python and torch."""
    info = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*:\s*(.+)", info.read_text()) if info.exists() else []
    model = names[0].strip() if names else platform.processor() or platform.machine()
    cores = len(os.sched_getaffinity(0))
    return f"{model}, {cores} cores, Python {platform.python_version()}, torch {torch.__version__}"


def publish(table: Table, *, command: str, stored: bool = True) -> None:
    """Print the table; unless ``stored`` is false, also keep it under ``results/`` and in the README."""
    print(f"\n{table.title}\n\n{markdown(table)}\n")
    print("\n".join(table.notes))
    if stored:
        today = datetime.datetime.now(datetime.UTC).date().isoformat()
        store(Published(table=table, command=command, date=today, machine=machine()))


def store(published: Published, *, results: Path = RESULTS, readme: Path = README) -> None:
    """Write ``results/<name>.json`` and the section of the README between its two markers."""
    results.mkdir(parents=True, exist_ok=True)
    encoded = msgspec.json.format(msgspec.json.encode(published), indent=1)
    (results / f"{published.table.name}.json").write_bytes(encoded + b"\n")
    text = readme.read_text() if readme.exists() else "# Benchmarks\n"
    readme.write_text(_with_section(text, published.table.name, section(published)))


def section(published: Published) -> str:
    """The README's section of one table."""
    table = published.table
    notes = "".join(f"\n- {note}" for note in table.notes)
    origin = f"`{published.command}`, {published.date}, {published.machine}."
    return f"## {table.title}\n\n{origin}\n\n{markdown(table)}\n{notes}\n"


def _with_section(text: str, name: str, content: str) -> str:
    begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
    block = f"{begin}\n{content}{end}"
    if begin not in text:
        return f"{text.rstrip()}\n\n{block}\n"
    head, rest = text.split(begin, 1)
    return f"{head}{block}{rest.split(end, 1)[1]}"


def markdown(table: Table) -> str:
    """An aligned Markdown table: first column to the left, numbers to the right."""
    lines = [table.columns, *table.cells]
    widths = [max(3, *(len(line[index]) for line in lines)) for index in range(len(table.columns))]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join(_line(cells, widths) for cells in (table.columns, rule, *table.cells))


def _line(cells: list[str], widths: list[int]) -> str:
    first = cells[0].ljust(widths[0])
    return (
        "| " + " | ".join([first, *(c.rjust(w) for c, w in zip(cells[1:], widths[1:], strict=True))]) + " |"
    )
