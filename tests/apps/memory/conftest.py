"""The command ``esper memory`` in a project of its own."""

from __future__ import annotations

import io
import json
import sys

import pytest
import typer.main

from esper.apps import cli


class Shell:
    """Runs ``esper memory ...`` and keeps what came: code, output, errors."""

    def __init__(self, monkeypatch, capsys):
        self._monkeypatch = monkeypatch
        self._capsys = capsys

    def run(self, *arguments, given=""):
        self._monkeypatch.setattr(sys, "argv", ["esper", "memory", *map(str, arguments)])
        self._monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given.encode())))
        with pytest.raises(SystemExit) as caught:
            cli.main()
        return (caught.value.code or 0, *self._capsys.readouterr())

    def __call__(self, *arguments, given=""):
        """What it prints; fails the test unless the command succeeds."""
        code, out, err = self.run(*arguments, given=given)
        assert code == 0, err
        return out.strip()

    def json(self, *arguments, given=""):
        return json.loads(self(*arguments, "--json", given=given))

    def refused(self, *arguments, given=""):
        """The one line of error; fails the test unless the command fails."""
        code, out, err = self.run(*arguments, given=given)
        assert code != 0, out
        return " ".join(err.replace("│", " ").split())


@pytest.fixture(scope="session")
def command():
    """The commands, put together once: typer takes longer for that than most of them run."""
    return typer.main.get_command(cli.app)


@pytest.fixture
def shell(tmp_path, monkeypatch, capsys, command):
    monkeypatch.setattr(cli, "app", command)
    monkeypatch.setenv("ESPER_HOME", str(tmp_path / ".esper"))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.chdir(tmp_path)
    return Shell(monkeypatch, capsys)


@pytest.fixture
def solve(shell):
    """Record one finished episode; its id."""

    def record(task="fix the flaky test", *, ending="complete", domain="ci", cure="freeze the clock"):
        id = shell("episode", "create", task, "--type", "bugfix", "--domain", domain)
        shell("episode", "step", id, "--tool", "pytest", "--error", "2 failed")
        shell("episode", "step", id, "--tool", "editor", "--action", cure, "--result", "passed")
        shell("episode", ending, id, "as it went", "--verified", 1.0 if ending == "complete" else 0.0)
        return id

    return record
