"""The vulnerability audit fails on what it finds, and says so when it could not look."""

from __future__ import annotations

import importlib.util
import json
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / ".ci" / "audit.py"
SOUND = {"name": "sound", "version": "1.0", "vulns": []}
HOLED = {"name": "holed", "version": "2.0", "vulns": [{"id": "CVE-1", "fix_versions": ["2.1"]}]}
UNKNOWN = {"name": "unknown", "skip_reason": "not found"}


@pytest.fixture
def audit(monkeypatch):
    """A function that runs the audit with a canned answer of pip-audit."""
    spec = importlib.util.spec_from_file_location("audit", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def run(stdout: str, stderr: str = "") -> int:
        answer = subprocess.CompletedProcess([], 0, stdout, stderr)
        monkeypatch.setattr(module.subprocess, "run", lambda *_, **__: answer)
        return module.main("constraints.txt")

    return run


def test_a_known_vulnerability_fails_and_is_named(audit, capsys):
    assert audit(json.dumps({"dependencies": [SOUND, HOLED]})) == 1
    assert "holed 2.0: CVE-1 (fixed in: 2.1)" in capsys.readouterr().out


def test_sound_packages_pass_and_are_counted(audit, capsys):
    assert audit(json.dumps({"dependencies": [SOUND, UNKNOWN]})) == 0
    out = capsys.readouterr().out
    assert "1 of 2 packages looked up, 0 vulnerabilities found" in out
    assert "NOT DONE" not in out


def test_a_service_that_knows_no_package_is_reported(audit, capsys):
    assert audit(json.dumps({"dependencies": [UNKNOWN]})) == 0
    assert "NOT DONE, the advisory service gave no answer. not found" in capsys.readouterr().out


def test_a_service_that_cannot_be_reached_is_reported(audit, capsys):
    assert audit("", "Traceback\nConnectionError: no route\n") == 0
    assert (
        "NOT DONE, the advisory service gave no answer. ConnectionError: no route" in capsys.readouterr().out
    )
