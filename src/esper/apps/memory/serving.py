"""``esper memory mcp``: the memory for agents, on standard input and output or over HTTP."""

from __future__ import annotations

import secrets
import socket
from enum import StrEnum
from typing import Annotated

from esper.apps.memory.opened import opened_for_recall
from esper.apps.terminal import Context, Option, Typer, echo
from esper.errors import ConfigurationError
from esper.memory.memory import Memory
from esper.settings import Settings


class Transport(StrEnum):
    """How a client reaches the server."""

    stdio = "stdio"
    http = "http"


def add_to(app: Typer) -> None:
    """Put ``mcp`` under ``esper memory``."""
    app.command()(mcp)


def mcp(
    context: Context,
    *,
    transport: Annotated[
        Transport, Option(help="stdio: the client starts this command itself")
    ] = Transport.stdio,
    host: Annotated[
        str, Option(help="http: the address to listen at, and the name that clients use")
    ] = "127.0.0.1",
    port: Annotated[int, Option(help="http; 0 takes a free one", min=0, max=65_535)] = 8_765,
) -> None:
    """Serve the memory to agents by the Model Context Protocol.

    Over HTTP a client must know the token in ESPER_MEMORY_TOKEN; without one, a new token is made and printed.

    [bold]Examples[/bold]

    claude mcp add memory -- esper memory mcp

    esper memory mcp --transport http --port 8765
    """
    try:
        from esper.apps.memory.mcp.server import serve_stdio
    except ImportError as error:
        raise ConfigurationError("the MCP server needs its library: pip install 'esper-grow[mcp]'") from error
    with opened_for_recall(context) as memory:
        if transport is Transport.stdio:
            serve_stdio(memory)
        else:
            _serve_http(memory, host, port)


def _serve_http(memory: Memory, host: str, port: int) -> None:
    """Listens before it says so: whoever reads the address can connect."""
    import uvicorn

    from esper.apps.memory.mcp.bearer import with_token
    from esper.apps.memory.mcp.server import http_app

    with _listening(host, port) as listening:
        port = listening.getsockname()[1]
        app = with_token(http_app(memory, host=host, port=port), _token())
        echo(f"http://{f'[{host}]' if ':' in host else host}:{port}/mcp", err=True)
        uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listening])


def _token() -> str:
    given = Settings().memory_token
    if given is not None:
        return given.get_secret_value()
    token = secrets.token_urlsafe(32)
    echo(f"token: {token}  (set ESPER_MEMORY_TOKEN to choose it yourself)", err=True)
    return token


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise ConfigurationError(
            f"cannot listen at {host}:{port}: {error.strerror}; give another --host or --port"
        ) from error
