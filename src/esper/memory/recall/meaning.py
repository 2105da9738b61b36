"""What items mean, as vectors: made when somebody asks, kept in the store, searched in memory. Knows no provider."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import numpy as np

from esper.memory.recall.embeddings import (
    Embedder,
    Vectors,
    embed_distinct,
    midway,
    record_texts,
    record_vectors,
)
from esper.memory.recall.guarded import GuardedEmbedder
from esper.memory.recall.vectors import VectorIndex
from esper.memory.records import Item
from esper.memory.stores.store import Store

BATCH: Final = 32
"""So many items that have no vector yet are embedded along with a question."""
_PAGE: Final = 256
_LOADED: Final = 10_000


class Meaning:
    """Vectors of all items by namespace; safe to use from several threads.

    Nothing is embedded when an item is written: a provider that is slow or gone never delays a write. Vectors of
    another name or dimension are never looked at.
    """

    def __init__(self, store: Store, embedder: Embedder) -> None:
        self._store = store
        self._guarded = embedder if isinstance(embedder, GuardedEmbedder) else GuardedEmbedder(embedder)
        self._model = f"{embedder.name} [{embedder.dimension}]"
        self._lock = threading.Lock()
        self._batch = BATCH
        self.reset()

    def reset(self) -> None:
        """Forget what was read from the store; the next question reads it again."""
        with self._lock:
            self._indexes: dict[str, VectorIndex] = {}
            self._reached = 0
            self.complete = True
            """Whether every item had a vector when the last question was asked."""

    def ask(self, question: str) -> Vectors:
        """The question's vector, shape [dimension]; new items get theirs by the same call of the provider.

        Raises:
            EmbeddingError: the provider is too late, failed, or rests.
        """
        loaded = self._load()
        room = self._batch
        waiting = self._store.items.unembedded(self._model, room + 1, after=self._reached)
        new = waiting[:room]
        try:
            vectors = embed_distinct(self._guarded, [question, *record_texts(_records(new))])
        except BaseException:
            self._batch = 0  # what was asked along may be the reason
            raise
        self._batch = min(2 * self._batch + 1, BATCH)
        self._keep(new, midway(vectors[1:]))
        with self._lock:
            self.complete = len(waiting) <= room
            self._reached = max(
                [place for place, _ in new] + ([loaded] if self.complete else [self._reached])
            )
        answer: Vectors = vectors[0]
        return answer

    def nearest(self, question: Vectors, namespace: str | None, k: int) -> dict[str, float]:
        """The ``k`` largest cosines in a namespace (``None``: all), by item id."""
        near = self._store.neighbours
        if near is not None:
            return near.nearest(self._model, _bytes(question), namespace, k)
        found: dict[str, float] = {}
        for index in self._within(namespace):
            found |= index.nearest(question, k)
        return dict(sorted(found.items(), key=lambda one: (-one[1], one[0]))[:k])

    def cosines(self, question: Vectors, namespace: str | None, ids: Iterable[str]) -> dict[str, float]:
        """Cosines of those of these items that have a vector."""
        wanted, found = list(ids), dict[str, float]()
        near = self._store.neighbours
        if near is not None:
            return near.cosines(self._model, _bytes(question), wanted)
        for index in self._within(namespace):
            found |= index.cosines(question, wanted)
        return found

    def embed_again(self) -> int:
        """Give every item without a vector of this model one, however long it takes; how many.

        Raises:
            EmbeddingError: the provider failed; what it gave before is kept.
        """
        place = count = 0
        while page := self._store.items.unembedded(self._model, _PAGE, after=place):
            self._keep(page, record_vectors(self._guarded.embedder, _records(page)))
            place, count = page[-1][0], count + len(page)
        self.reset()
        return count

    def _within(self, namespace: str | None) -> list[VectorIndex]:
        with self._lock:
            return [one for name, one in self._indexes.items() if namespace in (None, name)]

    def _load(self) -> int:
        """Read what is new in the store, by whatever process; the place of the last."""
        place = self._reached
        if self._store.neighbours is not None:
            return self._store.neighbours.take_in(self._model, place)
        while page := self._store.items.vectors(self._model, after=place, limit=_LOADED):
            ids: dict[str, list[str]] = {}
            blobs: dict[str, list[bytes]] = {}
            for one in page:
                ids.setdefault(one.namespace, []).append(one.id)
                blobs.setdefault(one.namespace, []).append(one.vector)
            self._put(ids, {name: self._rows(found) for name, found in blobs.items()})
            place = page[-1].place
        return place

    def _rows(self, blobs: Sequence[bytes]) -> Vectors:
        rows: Vectors = np.frombuffer(b"".join(blobs), "<f4").reshape(len(blobs), self._guarded.dimension)
        return rows

    def _keep(self, new: Sequence[tuple[int, Item]], vectors: Vectors) -> None:
        if not new:
            return
        rows = np.ascontiguousarray(vectors, "<f4")
        ids = [item.id for _, item in new]
        self._store.items.put_vectors(
            self._model, {id: row.tobytes() for id, row in zip(ids, rows, strict=True)}
        )
        if self._store.neighbours is not None:
            self._store.neighbours.take_in(self._model, new[0][0] - 1)
            return
        for (_, item), row in zip(new, rows, strict=True):
            self._put({item.namespace: [item.id]}, {item.namespace: row[None]})

    def _put(self, ids: Mapping[str, Sequence[str]], rows: Mapping[str, Vectors]) -> None:
        with self._lock:
            for name, found in ids.items():
                index = self._indexes.get(name)
                if index is None:
                    index = self._indexes[name] = VectorIndex(self._guarded.dimension)
                index.put(found, rows[name])


def _bytes(vector: Vectors) -> bytes:
    return np.ascontiguousarray(vector, "<f4").tobytes()


def _records(new: Sequence[tuple[int, Item]]) -> list[tuple[str, str]]:
    return [(item.lesson.title, item.lesson.text or item.kind) for _, item in new]
