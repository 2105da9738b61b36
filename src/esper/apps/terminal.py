"""What a command line is made of: commands, options, questions. The only file that knows typer."""

from __future__ import annotations

from typing import Any

import msgspec
from typer import Argument, BadParameter, Context, Exit, Option, Typer, confirm, echo

__all__ = [
    "Argument",
    "BadParameter",
    "Context",
    "Exit",
    "Option",
    "Typer",
    "confirm",
    "echo",
    "print_json",
]


def print_json(value: Any) -> None:
    """Indented JSON on standard output; ``value`` is made of what msgspec knows."""
    echo(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())
