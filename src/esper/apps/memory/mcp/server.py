"""Serves the tools, resources and prompts to any MCP client. The only file that knows the protocol's library."""

from __future__ import annotations

import functools
from collections.abc import Callable
from importlib import metadata
from typing import Any, Final

from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ResourceNotFoundError, ToolError
from mcp.server.transport_security import TransportSecuritySettings
from mcp.types import ToolAnnotations

from esper.apps.memory.mcp.prompts import PROMPTS
from esper.apps.memory.mcp.tools import Tools
from esper.errors import EpisodeError, EsperError
from esper.memory.memory import Memory

INSTRUCTIONS: Final = """A memory of how tasks went. Before a task: context (or recall). For the task: start_episode, \
log_step after each thing you do (failures too), complete_episode with an honest ending and, in used, the ids of the \
recalled items that you relied on. What you recall outside an episode: tell feedback what helped."""
_READS: Final = frozenset({"patterns", "playbook", "explain", "stats", "analyse"})


def make_server(memory: Memory) -> MCPServer[Any]:
    """A server of this memory; whoever runs it closes the memory."""
    tools = Tools(memory)
    server: MCPServer[Any] = MCPServer(
        "esper-memory",
        title="Esper's memory",
        version=metadata.version("esper-grow"),
        instructions=INSTRUCTIONS,
        log_level="WARNING",
    )
    for tool in tools.all():
        server.tool(title=_title(tool.__name__), annotations=_annotations(tool.__name__))(_told(tool))
    _add_resources(server, tools)
    _add_metrics(server, tools)
    for prompt in PROMPTS:
        server.prompt(title=_title(prompt.__name__), description=prompt.__doc__)(prompt)
    return server


def serve_stdio(memory: Memory) -> None:
    """Serve one client on standard input and output until it goes."""
    make_server(memory).run("stdio")


def http_app(memory: Memory, *, host: str, port: int) -> Any:
    """The ASGI application at ``/mcp``; answers only requests that name ``host`` (a web page elsewhere cannot)."""
    names = ["127.0.0.1", "localhost", "[::1]"] if host in {"127.0.0.1", "localhost", "::1"} else [host]
    security = TransportSecuritySettings(
        allowed_hosts=[f"{name}:{port}" for name in names],
        allowed_origins=[f"http://{name}:{port}" for name in names],
    )
    return make_server(memory).streamable_http_app(transport_security=security, host=host)


def _annotations(name: str) -> ToolAnnotations:
    """No tool erases anything or reaches beyond the memory. A recall is no pure reading: what it showed is counted."""
    return ToolAnnotations(
        title=_title(name),
        read_only_hint=name in _READS,
        destructive_hint=False,
        idempotent_hint=name in _READS,
        open_world_hint=False,
    )


def _title(name: str) -> str:
    return name.replace("_", " ").capitalize()


def _told(tool: Callable[..., Any]) -> Callable[..., Any]:
    """The tool, whose errors on purpose reach the agent in their own words; the library hides all others."""

    @functools.wraps(tool)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return tool(*args, **kwargs)
        except EsperError as error:
            raise ToolError(str(error)) from error

    return call


def _add_resources(server: MCPServer[Any], tools: Tools) -> None:
    @server.resource(
        "memory://episode/{id}",
        title="Episode",
        mime_type="application/json",
        description="An episode with its steps",
    )
    def episode(id: str) -> str:
        return _found(lambda: tools.episode(id).model_dump_json())

    @server.resource(
        "memory://pattern/{id}",
        title="Pattern",
        mime_type="application/json",
        description="A pattern with its trust",
    )
    def pattern(id: str) -> str:
        return _found(lambda: tools.pattern(id).model_dump_json())

    @server.resource(
        "memory://stats", title="Figures", mime_type="application/json", description="How the memory is doing"
    )
    def stats() -> str:
        return tools.stats().model_dump_json()


def _add_metrics(server: MCPServer[Any], tools: Tools) -> None:
    @server.resource(
        "memory://metrics",
        title="Metrics",
        mime_type="text/plain",
        description="Figures for a monitor, in the text format of Prometheus, of this server's process",
    )
    def metrics() -> str:
        return tools.metrics()


def _found(read: Callable[[], str]) -> str:
    try:
        return read()
    except EpisodeError as error:
        raise ResourceNotFoundError(str(error)) from error
