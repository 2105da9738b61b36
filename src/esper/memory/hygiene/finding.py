"""What an audit tells. Knows no kind by its rules."""

from __future__ import annotations

from typing import Literal

import msgspec

FindingKind = Literal["duplicate", "stale", "loop", "secret"]


class Finding(msgspec.Struct, frozen=True):
    """Something that does not belong in a memory: in which episode or item, and what to do about it.

    ``others`` are the ids that it repeats.
    """

    kind: FindingKind
    subject: str
    message: str
    others: tuple[str, ...] = ()
