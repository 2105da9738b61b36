"""Nothing that a user can say to Esper is left out of the documentation."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest
import typer.main

import esper
from esper import events
from esper.apps.cli import app
from esper.training.task_file import load_task

DOCS = Path(__file__).parents[1] / "docs"
COMMANDS = typer.main.get_command(app).commands


def _page(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def _options(command: str) -> set[str]:
    return {name for option in COMMANDS[command].params for name in option.opts if name.startswith("--")}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_and_option_stands_on_the_page(command):
    page = _page("cli.md")
    assert f"`esper {command}`" in page
    assert {option for option in _options(command) if option not in page} == set()


@pytest.mark.parametrize("name", [name for name in esper.__all__ if name != "__version__"])
def test_every_public_name_stands_in_the_reference(name):
    home = esper._HOME[name]
    assert re.search(rf"^::: {home}(\.{name})?$", _page("api.md"), re.MULTILINE)


def test_every_event_stands_in_the_reference_and_says_what_it_is():
    assert "::: esper.events\n" in _page("api.md")
    silent = [kind.__name__ for kind in events.AnyEvent.__args__ if not inspect.getdoc(kind)]
    assert silent == []


def test_every_argument_of_grower_is_explained():
    arguments = set(inspect.signature(esper.Grower).parameters)
    page = _page("how-growth-works.md")
    signature = re.search(r"^Grower\((.*?)\)$", page, re.MULTILINE | re.DOTALL)
    assert set(re.findall(r"(\w+)(?:=[^,]*(?:\([^)]*\))?)?(?:,|$)", signature[1])) == arguments


def test_the_task_file_on_the_page_is_a_task(tmp_path):
    block = re.search(r"^```python\n(.*?)^```$", _page("cli.md"), re.MULTILINE | re.DOTALL)
    path = tmp_path / "my_task.py"
    path.write_text(block[1])
    task = load_task(path)
    assert task.make_model(0)(task.sets.train[0]).shape == task.sets.train[1].shape
