"""Only who knows the token gets to the application."""

from __future__ import annotations

import asyncio

import pytest

from esper.apps.memory.mcp.bearer import with_token


def answer(*headers, kind="http"):
    """What a request with these headers gets: the status, and whether it reached the application."""
    sent, reached = [], []

    async def app(scope, _receive, _send):
        reached.append(scope)

    async def send(message):
        sent.append(message)

    scope = {"type": kind, "headers": [(b"authorization", header) for header in headers]}
    asyncio.run(with_token(app, "open sesame")(scope, None, send))
    return sent[0]["status"] if sent else None, bool(reached)


def test_the_token_opens():
    assert answer(b"Bearer open sesame") == (None, True)


@pytest.mark.parametrize(
    "headers",
    [
        (),
        (b"open sesame",),
        (b"Bearer open",),
        (b"Bearer open sesame ",),
        (b"bearer open sesame",),
        (b"Bearer \xff",),
        (b"Bearer wrong", b"Bearer open sesame"),
    ],
)
def test_nothing_else_does(headers):
    assert answer(*headers) == (401, False)


def test_the_start_of_the_server_needs_no_token():
    assert answer(kind="lifespan") == (None, True)
