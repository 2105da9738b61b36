"""Nearest vectors by exact search over one matrix in memory. Does not know what the vectors mean."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence

import numpy as np

from esper.errors import EmbeddingError
from esper.memory.recall.embeddings import Vectors


class VectorIndex:
    """Ids and their unit vectors, float32. Every method may be called from any thread."""

    def __init__(self, dimension: int) -> None:
        self.dimension = dimension
        self._lock = threading.Lock()
        self._rows = np.empty((0, dimension), np.float32)
        self._ids: list[str] = []
        self._place_of: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._ids)

    def put(self, ids: Sequence[str], vectors: Vectors) -> None:
        """Add vectors, or replace those of ids that are there.

        Raises:
            EmbeddingError: ``vectors`` is not of shape [len(ids), dimension].
        """
        if vectors.shape != (len(ids), self.dimension):
            raise EmbeddingError(
                f"expected vectors of shape {(len(ids), self.dimension)}, got {vectors.shape}"
            )
        with self._lock:
            for id in ids:
                if id not in self._place_of:
                    self._place_of[id] = len(self._ids)
                    self._ids.append(id)
            self._reserve(len(self._ids))
            self._rows[[self._place_of[id] for id in ids]] = vectors

    def remove(self, ids: Iterable[str]) -> None:
        """Forget ids; those that are not there are ignored. The last vector takes the place of a removed one."""
        with self._lock:
            for id in ids:
                place = self._place_of.pop(id, None)
                if place is None:
                    continue
                last = self._ids.pop()
                if last != id:
                    self._rows[place] = self._rows[len(self._ids)]
                    self._ids[place] = last
                    self._place_of[last] = place

    def nearest(self, query: Vectors, k: int) -> dict[str, float]:
        """The ``k`` largest cosines to a unit vector of shape [dimension], best first, ties by id."""
        with self._lock:
            cosines = self._rows[: len(self._ids)] @ query
            best = np.argpartition(-cosines, k - 1)[:k] if k < len(cosines) else np.arange(len(cosines))
            found = [(self._ids[place], float(cosines[place])) for place in best]
        return dict(sorted(found, key=lambda one: (-one[1], one[0])))

    def cosines(self, query: Vectors, ids: Iterable[str]) -> dict[str, float]:
        """Cosines of those of these ids that are there."""
        with self._lock:
            known = [id for id in ids if id in self._place_of]
            values = self._rows[[self._place_of[id] for id in known]] @ query
        return dict(zip(known, values.tolist(), strict=True))

    def _reserve(self, num_rows: int) -> None:
        if num_rows > len(self._rows):
            rows = np.empty((max(num_rows, 2 * len(self._rows), 64), self.dimension), np.float32)
            rows[: len(self._rows)] = self._rows
            self._rows = rows
