"""A server's vectors are read in its order; every other answer is one clear error."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest

from esper.errors import ConfigurationError, EmbeddingError
from esper.memory.recall.http_embeddings import BATCH, HttpEmbedder


class Server(ThreadingHTTPServer):
    """Answers every text with a vector of its length, or what it is told to answer."""

    status = 200
    body: bytes | None = None

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.asked: list[dict[str, Any]] = []
        self.keys: list[str | None] = []


class Answers(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append(asked)
        self.server.keys.append(self.headers["Authorization"])
        rows = [{"index": place, "embedding": [len(text), 1.0]} for place, text in enumerate(asked["input"])]
        body = self.server.body or json.dumps({"data": rows[::-1], "model": "m"}).encode()
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing is printed."""


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as made:
        threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield made
        made.shutdown()


def _embedder(server: Server, key: str | None = None) -> HttpEmbedder:
    url = f"http://127.0.0.1:{server.server_port}/v1/embeddings"
    return HttpEmbedder(url, model="m", dimension=2, key=key)


def test_vectors_come_in_the_order_of_the_texts(server: Server) -> None:
    rows = _embedder(server).embed(["a", "aaaaaaa"])
    np.testing.assert_allclose(rows, [[0.5**0.5, 0.5**0.5], [7 / 50**0.5, 1 / 50**0.5]], rtol=1e-6)


def test_many_texts_go_in_batches(server: Server) -> None:
    assert _embedder(server).embed(["a"] * (BATCH + 1)).shape == (BATCH + 1, 2)
    assert [len(asked["input"]) for asked in server.asked] == [BATCH, 1]


def test_no_texts_ask_nothing(server: Server) -> None:
    assert _embedder(server).embed([]).shape == (0, 2)
    assert server.asked == []


def test_the_key_goes_into_the_header_alone(server: Server) -> None:
    embedder = _embedder(server, key="sk-secret")
    embedder.embed(["a"])
    assert server.keys == ["Bearer sk-secret"]
    assert "secret" not in embedder.name


@pytest.mark.parametrize(
    ("status", "body", "match"),
    [
        (500, None, "status 500"),
        (401, b"{}", "status 401"),
        (200, b"<html>", "something else"),
        (200, b'{"data": []}', "0 of 1"),
        (200, b'{"data": [{"index": 0, "embedding": [1, 2, 3]}]}', "shape"),
        (200, b'{"data": [{"index": 4, "embedding": [1, 2]}]}', "1 of 1"),
    ],
)
def test_any_other_answer_is_an_embedding_error(
    server: Server, status: int, body: bytes | None, match: str
) -> None:
    server.status, server.body = status, body
    with pytest.raises(EmbeddingError, match=match):
        _embedder(server).embed(["a"])


def test_a_server_that_is_not_there_is_an_embedding_error() -> None:
    with pytest.raises(EmbeddingError, match="cannot be reached"):
        HttpEmbedder("http://127.0.0.1:1/v1/embeddings", model="m", dimension=2).embed(["a"])


@pytest.mark.parametrize("url", ["file:///etc/passwd", "localhost/v1", "ftp://host/x", "http://"])
def test_only_addresses_of_the_web_are_asked(url: str) -> None:
    with pytest.raises(ConfigurationError, match="http"):
        HttpEmbedder(url, model="m", dimension=2)
