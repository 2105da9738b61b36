"""Embeddings from a server that speaks OpenAI's ``/v1/embeddings``. Knows neither retries nor circuit breaking."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Sequence
from http.client import HTTPException
from typing import Final
from urllib.parse import urlsplit

import msgspec
import numpy as np

from esper.errors import ConfigurationError, EmbeddingError
from esper.memory.recall.embeddings import Vectors, unit_rows

TIMEOUT: Final = 10.0
BATCH: Final = 128
_MAX_ANSWER: Final = 64 * 2**20


class _Embedding(msgspec.Struct):
    index: int
    embedding: list[float]


class _Answer(msgspec.Struct):
    data: list[_Embedding]


class HttpEmbedder:
    """Posts ``{"model", "input"}`` in batches. The key never stands in a message.

    Put a ``GuardedEmbedder`` around it.
    """

    def __init__(self, url: str, *, model: str, dimension: int, key: str | None = None) -> None:
        """``url`` is the whole address, such as ``http://localhost:11434/v1/embeddings``.

        Raises:
            ConfigurationError: not an HTTP address.
        """
        address = urlsplit(url)
        if address.scheme not in ("http", "https") or not address.hostname:
            raise ConfigurationError(f"{address.scheme or 'no'} address is no http:// or https:// address")
        self.name = f"{address.hostname}:{model}"
        self.dimension = dimension
        self._url = url
        self._model = model
        self._headers = {"Content-Type": "application/json"}
        if key is not None:
            self._headers["Authorization"] = f"Bearer {key}"

    def embed(self, texts: Sequence[str]) -> Vectors:
        """One unit row a text.

        Raises:
            EmbeddingError: no answer, an error's status, or not one vector of ``dimension`` a text.
        """
        batches = [self._batch(texts[start : start + BATCH]) for start in range(0, len(texts), BATCH)]
        return np.concatenate([np.empty((0, self.dimension), np.float32), *batches])

    def _batch(self, texts: Sequence[str]) -> Vectors:
        body = msgspec.json.encode({"model": self._model, "input": list(texts)})
        request = urllib.request.Request(self._url, data=body, headers=self._headers)
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
                answer = msgspec.json.decode(response.read(_MAX_ANSWER), type=_Answer)
        except urllib.error.HTTPError as error:
            error.close()
            raise EmbeddingError(f"{self.name} answered with status {error.code}") from error
        except (OSError, HTTPException) as error:
            raise EmbeddingError(f"{self.name} cannot be reached: {error}") from error
        except msgspec.MsgspecError as error:
            raise EmbeddingError(
                f"{self.name} answered with something else than embeddings: {error}"
            ) from error
        return self._in_order(answer, len(texts))

    def _in_order(self, answer: _Answer, num_texts: int) -> Vectors:
        rows = {one.index: one.embedding for one in answer.data}
        if sorted(rows) != list(range(num_texts)):
            raise EmbeddingError(f"{self.name} answered {len(rows)} of {num_texts} texts")
        ordered = [rows[index] for index in range(num_texts)]
        return unit_rows(ordered, num_rows=num_texts, dimension=self.dimension)
