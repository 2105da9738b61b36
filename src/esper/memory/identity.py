"""Ids that sort by time (UUID version 7, RFC 9562), and the clock. Knows nothing of what they name."""

from __future__ import annotations

import datetime
import os
import random
import time
from collections.abc import Callable
from functools import lru_cache
from hashlib import sha1

Clock = Callable[[], int]
"""Returns nanoseconds since the epoch."""

system_clock: Clock = time.time_ns

_VERSION_AND_VARIANT = (7 << 76) | (2 << 62)
_LOW = (1 << 62) - 1
_random = random.Random(os.urandom(32))
os.register_at_fork(after_in_child=lambda: _random.seed(os.urandom(32)))


def new_id(now: int) -> str:
    """A UUIDv7 of the millisecond of ``now`` (nanoseconds since the epoch) with 74 random bits."""
    bits = _random.getrandbits(74)
    number = (now // 1_000_000 << 80) | (bits >> 62 << 64) | _VERSION_AND_VARIANT | (bits & _LOW)
    digits = f"{number:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def day_of(now: int) -> datetime.date:
    """The day, UTC, of a time in nanoseconds since the epoch."""
    return datetime.datetime.fromtimestamp(now // 10**9, datetime.UTC).date()


@lru_cache(maxsize=16_384)
def signature_of(*parts: str) -> int:
    """A signed 64-bit number that is the same for the same parts in every process."""
    joined = "\x1f".join(parts).encode("utf-8", "surrogatepass")
    return int.from_bytes(sha1(joined, usedforsecurity=False).digest()[:8], "big", signed=True)
