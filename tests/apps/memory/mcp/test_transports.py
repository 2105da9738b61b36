"""The command that agents start: by a pipe and over HTTP, with the official client."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from contextlib import contextmanager

import httpx2
import pytest
from mcp import Client, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client

from esper.memory import Memory

COMMAND = ("-c", "from esper.apps.cli import main; main()", "memory")
TOKEN = "open sesame"


@contextmanager
def serving(place, *, token=TOKEN):
    """The server as a process of its own; its address and the other lines that it wrote."""
    arguments = ("--at", str(place), "mcp", "--transport", "http", "--port", "0")
    environment = {"ESPER_MEMORY_TOKEN": token, "PATH": ""}
    with subprocess.Popen(
        [sys.executable, *COMMAND, *arguments], env=environment, stderr=subprocess.PIPE, text=True
    ) as server:
        lines = []
        for line in server.stderr:
            lines.append(line.strip())
            if line.startswith("http://"):
                break
        try:
            yield lines[-1], lines[:-1]
        finally:
            server.terminate()


async def solve(client):
    started = await client.call_tool("start_episode", {"task": "fix the flaky test"})
    id = started.structured_content["episode"]
    await client.call_tool("log_step", {"episode": id, "tool": "pytest", "error": "2 failed"})
    await client.call_tool("complete_episode", {"episode": id, "ending": "success"})
    return id


def test_a_client_starts_the_command_and_talks_through_a_pipe(tmp_path):
    place = tmp_path / "memory.db"
    server = StdioServerParameters(command=sys.executable, args=[*COMMAND, "--at", str(place), "mcp"])

    async def run():
        async with Client(server) as client:
            assert client.server_info.name == "esper-memory"
            assert "start_episode" in client.instructions
            return await solve(client)

    id = asyncio.run(run())
    with Memory(place) as memory:
        assert memory.get(id).outcome.ending == "success"


def test_a_client_with_the_token_talks_over_http(tmp_path):
    async def run(address):
        async with (
            httpx2.AsyncClient(headers={"Authorization": f"Bearer {TOKEN}"}) as http,
            Client(streamable_http_client(address, http_client=http)) as client,
        ):
            return await solve(client)

    with serving(tmp_path / "memory.db") as (address, _):
        id = asyncio.run(run(address))
    with Memory(tmp_path / "memory.db") as memory:
        assert memory.get(id).state == "completed"


def test_nobody_else_gets_in(tmp_path):
    known = {"Authorization": f"Bearer {TOKEN}"}
    with serving(tmp_path / "memory.db") as (address, _):
        for headers in ({}, {"Authorization": TOKEN}, {"Authorization": "Bearer open"}):
            answer = httpx2.post(address, json={}, headers=headers)
            assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
        stranger = httpx2.post(address, json={}, headers={**known, "Origin": "https://evil.example"})
        rebound = httpx2.post(address, json={}, headers={**known, "Host": "evil.example"})
        assert (stranger.status_code, rebound.status_code) == (403, 421)


def test_without_a_token_a_new_one_is_made_and_told(tmp_path):
    with (
        serving(tmp_path / "a.db", token="") as (_, first),
        serving(tmp_path / "b.db", token="") as (_, second),
    ):
        assert first[0].startswith("token: ")
        assert first != second


def test_an_address_that_is_taken_is_a_clear_error(shell):
    pytest.importorskip("uvicorn")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert "cannot listen at 127.0.0.1" in shell.refused("mcp", "--transport", "http", "--port", port)
