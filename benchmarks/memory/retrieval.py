"""Retrieval: does the memory find what answers a question?

``python -m benchmarks.memory.retrieval DIR``: sets in BEIR's layout, one or several below a folder
(``benchmarks.memory.convert`` makes some). ``--model FOLDER`` adds a hybrid with a sentence model in ONNX beside that
with the static table.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial

import msgspec

from benchmarks.memory.beir import Document, Part, read_parts
from benchmarks.memory.command import command_of, embedders_of, parser_of
from benchmarks.memory.kept import KeptEmbedder
from benchmarks.memory.measures import MEASURES, Measured, interval, mean, measure
from benchmarks.memory.rankers import Hybrid, Lexical, PlainBM25, Ranker, Remembered, WordOverlap
from benchmarks.table import Table, publish
from esper.memory.recall.embeddings import Embedder
from esper.memory.recall.terms import Weights

COLUMNS = ("R@1", "R@5", "R@10", "nDCG@10", "MRR")
Maker = Callable[[Sequence[Document]], Ranker]


class Asked(msgspec.Struct, frozen=True):
    """One question of one set, as one ranker did on it."""

    ranker: str
    part: str
    group: str
    category: str
    question: str
    measured: Measured


def makers(embedders: Sequence[Embedder]) -> dict[str, Maker]:
    """The rankers by name; a ``Memory`` is as its users have it: its trust, its answer that nothing is relevant."""
    ours = {f"ours, hybrid ({one.name})": partial(Hybrid, embedder=one) for one in embedders}
    memory = partial(Remembered, weights=Weights(), all_relevant=False)
    whole = {f"a Memory with meaning ({one.name})": partial(memory, embedder=one) for one in embedders}
    plain: dict[str, Maker] = {"word overlap": WordOverlap, "plain BM25": PlainBM25, "ours, lexical": Lexical}
    return {**plain, **ours, "a Memory by words": memory, **whole}


def ask(part: Part, name: str, make: Maker) -> list[Asked]:
    """All questions of a set; a document never answers the question of its own id."""
    ranker = make(part.documents)
    answers = []
    for question in part.questions:
        ranked = [id for id in ranker.rank(question.text) if id != question.id]
        measured = measure(ranked, part.grades[question.id])
        category = str(question.metadata.category)
        answers.append(Asked(name, part.name, part.group, category, question.id, measured))
    return answers


def table(name: str, answers: Sequence[Asked]) -> Table:
    """Every ranker over all questions, then by group and by category where there are several."""
    cells = []
    for label, chosen in _selections(answers).items():
        by_ranker: dict[str, list[Measured]] = defaultdict(list)
        for one in chosen:
            by_ranker[one.ranker].append(one.measured)
        cells += [[f"{label}: {ranker}", *_figures(measured)] for ranker, measured in by_ranker.items()]
    return Table(
        name=f"retrieval_{name}".replace("-", "_"),
        title=f"Retrieval: {name}",
        columns=["questions: ranker", "questions", *COLUMNS],
        cells=cells,
        notes=[
            "a Memory: every document a note, with all its terms, and with the answer that nothing is relevant",
            "R@10 and nDCG@10 with 95 % bootstrap intervals over questions",
        ],
    )


def _selections(answers: Sequence[Asked]) -> dict[str, list[Asked]]:
    chosen = {"all": list(answers)}
    for kind in ("group", "category"):
        values = sorted({msgspec.structs.asdict(one)[kind] for one in answers} - {""})
        for value in values:
            chosen[value] = [one for one in answers if msgspec.structs.asdict(one)[kind] == value]
    return chosen


def _figures(measured: list[Measured]) -> list[str]:
    figures = []
    for name in MEASURES:
        text = f"{mean(measured, name):.3f}"
        if name in ("r10", "ndcg10"):
            low, high = interval(measured, name)
            text += f" [{low:.3f}, {high:.3f}]"
        figures.append(text)
    return [str(len(measured)), *figures]


def main() -> None:
    """Rank every set below the folder and print the table; ``--publish`` also stores it."""
    parser = parser_of("retrieval", __doc__)
    parser.add_argument("--lexical", action="store_true", help="no vectors")
    given = parser.parse_args()
    embedders = [] if given.lexical else embedders_of(given.model)
    kept = [KeptEmbedder(embedder) for embedder in embedders]
    parts = read_parts(given.folder)
    answers = [one for name, make in makers(kept).items() for part in parts for one in ask(part, name, make)]
    line = command_of("retrieval", given.folder, given.model)
    publish(table(given.folder.resolve().name, answers), command=line, stored=given.publish)


if __name__ == "__main__":
    main()
