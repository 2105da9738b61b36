"""One line of a context pack. Knows nothing of budgets."""

from __future__ import annotations

import msgspec


class Line(msgspec.Struct, frozen=True):
    """A line of a section, the items that it is made of, and the place of the best of them among the answers."""

    section: str
    text: str
    items: tuple[str, ...]
    place: int
