"""Embeddings kept on disk between runs, outside the project. Does not know what they are for."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from esper.memory.recall.embeddings import Embedder, Vectors

FOLDER = Path("~/.cache/esper-benchmarks/embeddings").expanduser()


class KeptEmbedder:
    """An embedder whose answers of more than one text are kept in a file named after model and texts."""

    def __init__(self, embedder: Embedder, *, folder: Path = FOLDER) -> None:
        self.embedder = embedder
        self.name = embedder.name
        self.dimension = embedder.dimension
        self._folder = folder

    def embed(self, texts: Sequence[str]) -> Vectors:
        """The embedder's vectors, from the file if it is there."""
        if len(texts) < 2:
            return self.embedder.embed(texts)
        key = hashlib.sha256("\0".join([self.name, *texts]).encode()).hexdigest()[:32]
        path = self._folder / f"{key}.npy"
        if path.exists():
            kept: Vectors = np.load(path)
            return kept
        vectors = self.embedder.embed(texts)
        self._folder.mkdir(parents=True, exist_ok=True)
        np.save(path, vectors)
        return vectors
