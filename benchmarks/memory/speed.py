"""How long does a ranking take? Documents of all sets below a folder, repeated until there are enough.

``python -m benchmarks.memory.speed DIR``: questions one by one, in memory, on one thread; the store's own work is not
in it.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from functools import partial

import msgspec
import numpy as np

from benchmarks.memory.beir import Document, Part, read_parts
from benchmarks.memory.command import command_of, embedders_of, parser_of
from benchmarks.memory.rankers import Hybrid, Lexical, PlainBM25
from benchmarks.table import Table, publish
from esper.memory.recall.embeddings import Embedder

QUESTIONS = 300
SIZES = (1_000, 10_000)


def documents_of(parts: Sequence[Part], size: int) -> list[Document]:
    """``size`` documents with ids of their own, in the order of the sets, from the start again when they run out."""
    pool = itertools.cycle([document for part in parts for document in part.documents])
    return [
        msgspec.structs.replace(document, id=f"d{number}")
        for number, document in zip(range(size), pool, strict=False)
    ]


def times(rank: Callable[[str], object], questions: Sequence[str]) -> list[float]:
    """Milliseconds of each question, after ten to warm up."""
    for question in questions[:10]:
        rank(question)
    taken = []
    for question in questions:
        start = time.perf_counter()
        rank(question)
        taken.append(1e3 * (time.perf_counter() - start))
    return taken


def rows(parts: Sequence[Part], size: int, embedders: Sequence[Embedder]) -> list[list[str]]:
    """Percentiles by ranker; the embedding of the question is part of a hybrid's time."""
    asked = [question.text for part in parts for question in part.questions]
    questions = asked[:: max(1, len(asked) // QUESTIONS)]
    documents = documents_of(parts, size)
    lexical = Lexical(documents)
    rankers: dict[str, Callable[[str], object]] = {
        "plain BM25": PlainBM25(documents).rank,
        "ours, lexical": lexical.rank,
    }
    rankers["coverage of a question"] = lexical.covered
    for embedder in embedders:
        hybrid = Hybrid(documents, embedder, lexical=lexical)
        rankers[f"ours, hybrid ({embedder.name})"] = hybrid.rank
        rankers[f"embedding of a question ({embedder.name})"] = partial(_embedded, embedder)
    measured = {name: times(rank, questions) for name, rank in rankers.items()}
    return [
        [f"{size:,}: {name}", *(f"{value:.2f}" for value in np.quantile(taken, [0.5, 0.95, 0.99]))]
        for name, taken in measured.items()
    ]


def _embedded(embedder: Embedder, question: str) -> object:
    return embedder.embed([question])


def main() -> None:
    """Print the table of one folder of sets."""
    parser = parser_of("speed", __doc__)
    given = parser.parse_args()
    parts = read_parts(given.folder)
    embedders = embedders_of(given.model)
    made = Table(
        name="ranking_speed",
        title="How long a ranking takes",
        columns=["documents: what", "p50 ms", "p95 ms", "p99 ms"],
        cells=[row for size in SIZES for row in rows(parts, size, embedders)],
    )
    publish(made, command=command_of("speed", given.folder, given.model), stored=given.publish)


if __name__ == "__main__":
    main()
