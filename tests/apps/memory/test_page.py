"""The page on the memory leaves no command, tool or prompt out."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import typer.core

from esper.apps.memory.mcp.prompts import PROMPTS
from esper.apps.memory.mcp.tools import Tools
from esper.memory import Memory
from esper.settings import Settings

PAGE = (Path(__file__).parents[3] / "docs" / "memory.md").read_text(encoding="utf-8")


def _rows(group, path="esper memory"):
    for name, command in group.commands.items():
        if isinstance(command, typer.core.TyperGroup):
            yield f"{path} {name}", tuple(command.commands)
        else:
            yield path, (name,)


def test_every_command_stands_on_the_page(command):
    lines = [line for line in PAGE.splitlines() if line.startswith("| `esper memory")]
    for path, names in _rows(command.commands["memory"]):
        told = " ".join(line for line in lines if line.startswith(f"| `{path} "))
        missing = [name for name in names if not re.search(rf"[` ]{name}`", told)]
        assert missing == [], path


def test_every_tool_and_prompt_stands_on_the_page():
    with Memory(":memory:") as memory:
        names = [tool.__name__ for tool in (*Tools(memory).all(), *PROMPTS)]
    assert [name for name in names if f"`{name}`" not in PAGE] == []


def test_the_settings_of_the_memory_stand_on_the_page():
    names = [name for name in Settings.model_fields if name.startswith("memory_")]
    assert [name for name in names if f"ESPER_{name.upper()}" not in PAGE] == []


@pytest.mark.parametrize("block", re.findall(r"^```json\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
def test_a_block_of_json_starts_our_server(block, command):
    server = json.loads(block)["mcpServers"]["memory"]
    assert server["command"] == "esper"
    group, name = server["args"]
    assert name in command.commands[group].commands
