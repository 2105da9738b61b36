"""When is nothing relevant? Questions of one conversation are put to others, where nothing answers them.

``python -m benchmarks.memory.relevance DIR``: a folder with several sets, as ``benchmarks.memory.convert`` makes of
LoCoMo; only sets of one group are mixed.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import msgspec
import numpy as np

from benchmarks.memory.beir import Part, read_parts
from benchmarks.memory.command import command_of, embedders_of, parser_of
from benchmarks.memory.kept import KeptEmbedder
from benchmarks.memory.rankers import Hybrid, Lexical
from benchmarks.table import Table, publish
from esper.memory.recall.embeddings import Embedder

KEPT = (0.99, 0.98, 0.95)
STRIDE = 4
MEASURES = ("coverage", "coverage + held", "cosine", "coverage + cosine")


class Signal(msgspec.Struct, frozen=True):
    """What one question found in one set; ``answerable`` if it belongs there."""

    group: str
    answerable: bool
    coverage: float
    held: float
    cosine: float

    def value(self, name: str) -> float:
        """The sum of the signals that are named, a plus between them."""
        return float(sum(msgspec.structs.asdict(self)[part] for part in name.split(" + ")))


def signals(parts: Sequence[Part], embedder: Embedder) -> list[Signal]:
    """Every question on its own set, and every fourth on each other set of its group."""
    found = []
    for part in parts:
        lexical = Lexical(part.documents)
        hybrid = Hybrid(part.documents, embedder, lexical=lexical)
        for other in parts:
            if other.group != part.group:
                continue
            own = other is part
            found += [
                Signal(
                    group=part.group,
                    answerable=own,
                    coverage=lexical.covered(question.text),
                    held=lexical.held(question.text),
                    cosine=hybrid.nearest(question.text),
                )
                for question in itertools.islice(other.questions, 0, None, 1 if own else STRIDE)
            ]
    return found


def rows(found: Sequence[Signal], name: str) -> list[list[str]]:
    """For each share of answerable questions kept: the threshold, and how many others it lets through, by group."""
    cells = []
    for group, measure in itertools.product(sorted({one.group for one in found}), MEASURES):
        ours = np.array([one.value(measure) for one in found if one.group == group and one.answerable])
        others = np.array([one.value(measure) for one in found if one.group == group and not one.answerable])
        for kept in KEPT:
            threshold = float(np.quantile(ours, 1 - kept))
            passed = f"{np.mean(others >= threshold):.3f}"
            cells.append([f"{group}: {measure}, {name}", f"{kept:.2f}", f"{threshold:.3f}", passed])
    return cells


def main() -> None:
    """Print what each threshold keeps and lets through."""
    parser = parser_of("relevance", __doc__)
    given = parser.parse_args()
    parts = read_parts(given.folder)
    embedders = embedders_of(given.model)
    cells = [row for one in embedders for row in rows(signals(parts, KeptEmbedder(one)), one.name)]
    columns = ["group: signal", "answerable kept", "threshold", "unanswerable let through"]
    title = "When nothing is relevant: questions put to the wrong conversation"
    line = command_of("relevance", given.folder, given.model)
    publish(
        Table(name="relevance", title=title, columns=columns, cells=cells), command=line, stored=given.publish
    )


if __name__ == "__main__":
    main()
