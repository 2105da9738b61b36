"""Sets of documents and questions in the layout of BEIR. Does not know how anything is ranked.

A folder holds ``corpus.jsonl`` (``_id``, ``title``, ``text``, ``metadata``), ``queries.jsonl`` (``_id``, ``text``,
``metadata``) and ``qrels/test.tsv`` (query, document, grade, under a heading). Of a document's metadata, ``thread``
and ``date`` (ISO 8601) are read, of those of a question ``category``; none of them is needed. The documents of a thread
stand in their order.
"""

from __future__ import annotations

import csv
import datetime
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec


class Metadata(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is known beside the text."""

    thread: str | int = ""
    date: str = ""
    category: str | int = ""

    @property
    def day(self) -> datetime.date | None:
        """The date, if one is given as ISO 8601 has it."""
        found = re.match(r"\d{4}-\d{2}-\d{2}", self.date)
        return datetime.date.fromisoformat(found[0]) if found else None


class Document(msgspec.Struct, frozen=True, omit_defaults=True):
    """Something that can be found."""

    id: str = msgspec.field(name="_id")
    text: str = ""
    title: str | None = ""
    metadata: Metadata = Metadata()

    @property
    def whole(self) -> str:
        """Title and text."""
        return f"{self.title or ''} {self.text}".strip()


class Question(msgspec.Struct, frozen=True, omit_defaults=True):
    """Something that is asked."""

    id: str = msgspec.field(name="_id")
    text: str
    metadata: Metadata = Metadata()


@dataclass(frozen=True)
class Part:
    """One corpus with its questions; ``grades[question][document]`` is above nothing for what answers it."""

    name: str
    documents: list[Document]
    questions: list[Question]
    grades: dict[str, dict[str, int]] = field(repr=False)

    @property
    def group(self) -> str:
        """The first folder of its name: parts of one group are reported together."""
        return self.name.split("/")[0] if "/" in self.name else ""


def read_parts(folder: Path) -> list[Part]:
    """The set in a folder, or, if it holds no corpus, those of all folders below it, by name.

    Raises:
        FileNotFoundError: no ``corpus.jsonl`` anywhere in it.
    """
    found = sorted(path.parent for path in folder.rglob("corpus.jsonl"))
    if not found:
        raise FileNotFoundError(f"no corpus.jsonl in {folder}")
    return [_read(path, str(path.relative_to(folder)) if path != folder else "") for path in found]


def _read(folder: Path, name: str) -> Part:
    documents = msgspec.json.Decoder(Document).decode_lines((folder / "corpus.jsonl").read_bytes())
    questions = msgspec.json.Decoder(Question).decode_lines((folder / "queries.jsonl").read_bytes())
    grades: dict[str, dict[str, int]] = defaultdict(dict)
    with (folder / "qrels" / "test.tsv").open(newline="", encoding="utf-8") as lines:
        for question, document, grade in list(csv.reader(lines, delimiter="\t"))[1:]:
            if float(grade) > 0 and question != document:
                grades[question][document] = round(float(grade))
    asked = [question for question in questions if grades.get(question.id)]
    return Part(name, documents, asked, dict(grades))


def write_part(part: Part, folder: Path) -> None:
    """Write a set to ``folder``; what was there is replaced."""
    (folder / "qrels").mkdir(parents=True, exist_ok=True)
    (folder / "corpus.jsonl").write_bytes(_lines(part.documents))
    (folder / "queries.jsonl").write_bytes(_lines(part.questions))
    rows = [
        f"{question}\t{document}\t{grade}\n"
        for question, found in part.grades.items()
        for document, grade in found.items()
    ]
    heading = "query-id\tcorpus-id\tscore\n"
    (folder / "qrels" / "test.tsv").write_text(heading + "".join(rows), encoding="utf-8")


def _lines(values: Iterable[msgspec.Struct]) -> bytes:
    return b"".join(msgspec.json.encode(value) + b"\n" for value in values)
