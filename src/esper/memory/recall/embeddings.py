"""From texts to vectors: what an embedder promises, and the vector that a record keeps. Knows no provider."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from esper.errors import EmbeddingError

Vectors = npt.NDArray[np.float32]
"""Rows of unit length, shape [texts, dimension]."""


class Embedder(Protocol):
    """Texts to unit vectors. The same text always gives the same vector; callers may use several threads."""

    @property
    def name(self) -> str:
        """Provider and model: vectors of different names are never compared."""
        ...

    @property
    def dimension(self) -> int:
        """Numbers in a vector."""
        ...

    def embed(self, texts: Sequence[str]) -> Vectors:
        """One unit row a text, in order.

        Raises:
            EmbeddingError: the provider does not answer, or not with vectors of ``dimension``.
        """
        ...


class CallableEmbedder:
    """A function of yours as an embedder: ``function(texts)`` returns one row of ``dimension`` numbers a text."""

    def __init__(
        self, function: Callable[[Sequence[str]], npt.ArrayLike], *, name: str, dimension: int
    ) -> None:
        self.name = name
        self.dimension = dimension
        self._function = function

    def embed(self, texts: Sequence[str]) -> Vectors:
        """What the function gives, checked and brought to unit length."""
        return (
            unit_rows(self._function(texts), num_rows=len(texts), dimension=self.dimension)
            if texts
            else (np.empty((0, self.dimension), np.float32))
        )


def unit_rows(values: npt.ArrayLike, *, num_rows: int, dimension: int) -> Vectors:
    """Any numbers as float32 rows of unit length; a row of zeros stays zero and is like nothing.

    Raises:
        EmbeddingError: not numbers, not finite, or not of shape [num_rows, dimension].
    """
    try:
        rows = np.asarray(values, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise EmbeddingError("an embedding is not a row of numbers") from error
    if rows.shape != (num_rows, dimension):
        raise EmbeddingError(f"expected embeddings of shape {(num_rows, dimension)}, got {rows.shape}")
    if not np.isfinite(rows).all():
        raise EmbeddingError("an embedding holds a number that is not finite")
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    units: Vectors = np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 0)
    return units


def record_vectors(embedder: Embedder, records: Sequence[tuple[str, str]]) -> Vectors:
    """The vector that each record ``(title, text)`` keeps: midway between its title's and that of ``title: text``.

    So a short title weighs as much as a long text. Equal texts are embedded once.
    """
    return midway(embed_distinct(embedder, record_texts(records)))


def record_texts(records: Sequence[tuple[str, str]]) -> list[str]:
    """What is embedded of records ``(title, text)``: first all titles, then all wholes."""
    wholes = [f"{title}: {text}" if title and text else title or text for title, text in records]
    return [title or whole for (title, _), whole in zip(records, wholes, strict=True)] + wholes


def embed_distinct(embedder: Embedder, texts: Sequence[str]) -> Vectors:
    """One unit row a text; equal texts are embedded once."""
    places = {text: place for place, text in enumerate(dict.fromkeys(texts))}
    vectors = embedder.embed(list(places))
    rows: Vectors = vectors[[places[text] for text in texts]]
    return rows


def midway(vectors: Vectors) -> Vectors:
    """From the vectors of ``record_texts`` those of the records."""
    num_records, dimension = len(vectors) // 2, vectors.shape[1]
    return unit_rows(vectors[:num_records] + vectors[num_records:], num_rows=num_records, dimension=dimension)
