"""Does each term of the ranking earn its place? One is taken away at a time.

``python -m benchmarks.memory.ablation DIR``. Each line differs from its heading in one thing; differences are paired by
question, with bootstrap intervals.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.memory.beir import Part, read_parts
from benchmarks.memory.kept import KeptEmbedder
from benchmarks.memory.measures import RESAMPLES
from benchmarks.memory.rankers import Hybrid, Lexical
from benchmarks.memory.retrieval import Asked, Maker, ask
from benchmarks.table import Table, publish
from esper.memory.recall.embeddings import Embedder, Vectors
from esper.memory.recall.ranking import FieldWeights
from esper.memory.recall.static_table import StaticTable
from esper.memory.recall.words import FUNCTION_WORDS, tokens

RANK_CONSTANT = 60


class ReciprocalRanks(Hybrid):
    """The usual fusion: the sum of ``1 / (60 + place)``."""

    def rank(self, question: str) -> list[str]:
        places: dict[str, float] = {}
        for found in self.candidates(question):
            ordered = sorted(found, key=lambda id: -found[id])
            for place, id in enumerate(ordered, start=1):
                places[id] = places.get(id, 0.0) + 1 / (RANK_CONSTANT + place)
        return sorted(places, key=lambda id: -places[id])


def _without_function_words(question: str) -> list[str]:
    words = tokens(question)
    return [*dict.fromkeys([word for word in words if word not in FUNCTION_WORDS] or words)]


def _whole_only(embedder: Embedder, records: Sequence[tuple[str, str]]) -> Vectors:
    return embedder.embed(
        [f"{title}: {text}" if title and text else title or text for title, text in records]
    )


def _text_only(embedder: Embedder, records: Sequence[tuple[str, str]]) -> Vectors:
    return embedder.embed([text or title for title, text in records])


def lexical_variants() -> dict[str, Maker]:
    """Ours by words, and with one thing different."""
    return {
        "lexical": Lexical,
        "lexical, no records before it": partial(Lexical, without="nearby"),
        "lexical, no dates": partial(Lexical, without="context"),
        "lexical, title weighs as text": partial(Lexical, weights=FieldWeights(title=1.5)),
        "lexical, all weights 1": partial(
            Lexical, weights=FieldWeights(title=1, detail=1, context=1, nearby=1)
        ),
        "lexical, courtesies are asked for": partial(Lexical, words=_without_function_words),
        "lexical, all words are asked for": partial(
            Lexical, words=lambda question: [*dict.fromkeys(tokens(question))]
        ),
    }


def hybrid_variants(embedder: Embedder) -> dict[str, Maker]:
    """Ours by words and meaning, and with one thing different."""
    plain = partial(Hybrid, embedder=embedder)
    weights: dict[str, Maker] = {
        f"hybrid, weight of meaning {weight}": partial(plain, weight=weight)
        for weight in (0.3, 0.5, 0.7, 1.0)
    }
    return {
        "hybrid": plain,
        "hybrid, no vector of the title": partial(plain, vectors=_whole_only),
        "hybrid, vector of the text alone": partial(plain, vectors=_text_only),
        "hybrid, reciprocal ranks": partial(ReciprocalRanks, embedder=embedder),
        **weights,
    }


def rows(parts: Sequence[Part], variants: dict[str, Maker]) -> list[list[str]]:
    """One line a variant; the first is what the others are compared with."""
    answers = {
        name: [one for part in parts for one in ask(part, name, make)] for name, make in variants.items()
    }
    reference = next(iter(answers.values()))
    return [[name, *_compared(found, reference)] for name, found in answers.items()]


def _compared(found: Sequence[Asked], reference: Sequence[Asked]) -> list[str]:
    cells = []
    measures: tuple[Callable[[Asked], float], ...] = (
        lambda one: one.measured.r10,
        lambda one: one.measured.ndcg10,
    )
    for value in measures:
        ours = np.array([value(one) for one in found])
        gained = ours - np.array([value(one) for one in reference])
        drawn = np.random.default_rng(0).integers(len(gained), size=(RESAMPLES, len(gained)))
        low, high = np.quantile(gained[drawn].mean(axis=1), [0.025, 0.975])
        cells += [f"{ours.mean():.3f}", f"{gained.mean():+.3f} [{low:+.3f}, {high:+.3f}]"]
    return cells


def main() -> None:
    """Print the table of one folder of sets."""
    parser = argparse.ArgumentParser("python -m benchmarks.memory.ablation", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--publish", action="store_true", help="store the table in results/ and the README")
    given = parser.parse_args()
    parts = read_parts(given.folder)
    embedder = KeptEmbedder(StaticTable.installed())
    cells = rows(parts, lexical_variants()) + rows(parts, hybrid_variants(embedder))
    name = given.folder.resolve().name
    made = Table(
        name=f"ablation_{name}".replace("-", "_"),
        title=f"What each term of the ranking is worth: {name}",
        columns=["ranking", "R@10", "difference", "nDCG@10", "difference"],
        cells=cells,
        notes=[
            f"hybrid: {embedder.name}",
            "differences to the first line of each kind, with 95 % bootstrap intervals",
        ],
    )
    publish(made, command=f"python -m benchmarks.memory.ablation {given.folder.name}", stored=given.publish)


if __name__ == "__main__":
    main()
