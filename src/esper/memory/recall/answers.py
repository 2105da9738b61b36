"""What a recall returns. Knows neither how it was found nor where it rests."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from esper.memory.learning.trust import Trust
from esper.memory.records import Item


class Answer(msgspec.Struct, frozen=True):
    """One item, its total, the ``parts`` that add up to it, and how far its use can be relied on.

    ``alike`` are the ids of further items that say the same and rank behind it.
    """

    item: Item
    total: float
    parts: dict[str, float]
    trust: Trust
    alike: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """The item's id; an episode's is the episode's."""
        return self.item.id

    @property
    def text(self) -> str:
        """What it says."""
        return self.item.lesson.text

    @property
    def why(self) -> str:
        """The parts in words, the largest first."""
        ordered = sorted(self.parts.items(), key=lambda part: (-part[1], part[0]))
        return ", ".join(f"{name} {value:+.2f}" for name, value in ordered if value)


class Recalled(msgspec.Struct, frozen=True):
    """Answers, best first; empty when nothing is relevant. ``exposure`` is what feedback refers to.

    ``notice`` says what was amiss while searching, such as a provider of embeddings that did not answer.
    """

    query: str
    exposure: str
    answers: tuple[Answer, ...] = ()
    cached: bool = False
    notice: str = ""

    @property
    def relevant(self) -> bool:
        """Whether anything was found."""
        return bool(self.answers)

    @property
    def ids(self) -> tuple[str, ...]:
        """The items' ids, best first."""
        return tuple(answer.id for answer in self.answers)

    def explain(self) -> str:
        """A line for each answer: its total, the parts that make it, and what it says."""
        lines = [_line(answer) for answer in self.answers] or [f"nothing relevant to {self.query!r}"]
        return "\n".join([*lines, self.notice] if self.notice else lines)

    def __len__(self) -> int:
        return len(self.answers)

    def __getitem__(self, place: int) -> Answer:
        return self.answers[place]

    def __iter__(self) -> Iterator[Answer]:
        return iter(self.answers)


def _line(answer: Answer) -> str:
    more = f" (and {len(answer.alike)} alike)" if answer.alike else ""
    return f"{answer.total:.3f} = {answer.why}: {answer.text}{more}"
