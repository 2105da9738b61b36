"""The README and the pages of documentation do what they say: their Python runs, their commands exist."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
import typer.core
import typer.main

from esper.apps.cli import app

REPOSITORY = Path(__file__).parents[1]
PAGES = [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", *sorted(REPOSITORY.glob("docs/*.md"))]
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMANDS = typer.main.get_command(app).commands
MAKEFILE = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
LANGUAGES = {"python", "console", "text", "json"}


def _blocks(page: Path, language: str) -> list[str]:
    return [body for kind, body in FENCE.findall(page.read_text(encoding="utf-8")) if kind == language]


def _commands() -> list[str]:
    lines = [line for page in PAGES for block in _blocks(page, "console") for line in block.splitlines()]
    assert all(line.startswith("$ ") for line in lines)
    return sorted({line.removeprefix("$ ").partition("  #")[0].strip() for line in lines})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_says_what_it_is(page):
    text = page.read_text(encoding="utf-8")
    assert text.count("\n```") == 2 * len(FENCE.findall(text))
    assert {kind for kind, _ in FENCE.findall(text)} <= LANGUAGES


@pytest.mark.parametrize(
    "page", [page for page in PAGES if _blocks(page, "python")], ids=lambda page: page.name
)
def test_the_python_of_a_page_runs_from_top_to_bottom(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {"__name__": "__main__"}
    for number, block in enumerate(_blocks(page, "python"), start=1):
        exec(compile(block, f"{page.name} block {number}", "exec"), namespace)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_and_picture_leads_somewhere(page):
    targets = re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8"))
    local = [target for target in targets if not target.startswith("https://")]
    assert [target for target in local if not (page.parent / target).exists()] == []


def _give(commands, words):
    """The command, or the one inside it where it is a group, takes these words."""
    command = commands[words[0]]
    if isinstance(command, typer.core.TyperGroup):
        return _give(command.commands, words[1:])
    return command.make_context(words[0], words[1:])


@pytest.mark.parametrize("command", _commands())
def test_every_command_can_be_given(command):
    program, *words = shlex.split(command)
    match program:
        case "make":
            targets = re.findall(r"^([a-z]+):", MAKEFILE, re.MULTILINE)
            assert set(words) <= set(targets)
        case "pip":
            assert words == ["install", "-c", "constraints.txt", "-e", ".[all]"]
        case "claude":
            assert words[:5] == ["mcp", "add", "memory", "--", "esper"]
            _give(COMMANDS, words[5:])
        case ".venv/bin/pre-commit":
            assert words == ["install"]
        case "esper":
            _give(COMMANDS, words)
        case _:
            pytest.fail(f"nobody checks that `{command}` works")


def test_the_figures_are_those_that_the_benchmark_has_stored():
    stored = json.loads((REPOSITORY / "benchmarks" / "results" / "mnist1d.json").read_text(encoding="utf-8"))[
        "table"
    ]
    columns = [stored["columns"].index(name) for name in ("arm", "test accuracy", "parameters")]
    known = {tuple(cells[column] for column in columns) for cells in stored["cells"]}
    section = (
        (REPOSITORY / "README.md")
        .read_text(encoding="utf-8")
        .partition("## Figures")[2]
        .partition("\n## ")[0]
    )
    shown = [
        tuple(cell.strip() for cell in line.strip("|").split("|"))
        for line in section.splitlines()
        if line[:1] == "|"
    ]
    assert len(shown) > 4
    assert set(shown[2:]) <= known
