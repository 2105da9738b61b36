"""How far everything has come that a namespace was seen to do: what is a pattern, what may become one, what is usual.

Kept in the process from one completion to the next. Does not know what makes a pattern.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Collection, Mapping, Sequence
from typing import Final

import msgspec

from esper.memory.records import Episode, PatternKind, Tally
from esper.memory.stores.store import Effort, Sighting, Store, Support

SIMILAR: Final = 20
"""So many of the latest successes say what a kind of task usually costs."""
MAX_KEPT: Final = 50_000
"""Signatures that are kept in the process; beyond it all are read anew."""


class Known(msgspec.Struct, frozen=True, gc=False):
    """A pattern that is there: what it counts, and what sort it is."""

    tally: Tally
    pattern: PatternKind


class Ledger:
    """Reads what it has not seen yet, and writes to the store at once; lives inside the completion's transaction.

    It is true as long as the namespace's stamp is ``stamp``: whoever changes what was learned makes the stamp grow.
    """

    def __init__(self, store: Store, namespace: str) -> None:
        self._store = store
        self.namespace = namespace
        self.stamp = 0
        self._standing: dict[int, Known | Support] = {}
        self._habits: dict[str, dict[str, float]] = {}
        self._counts: dict[int, int] = {}
        self._efforts: dict[tuple[str, str], list[Effort]] = {}

    def standing(self, kinds: Mapping[int, PatternKind]) -> dict[int, Known | Support]:
        """How far each signature has come, which comes with the kind as which it is observed."""
        standing = self._standing
        unread = [sign for sign in kinds if sign not in standing]
        if unread:
            supported = self.support(unread)  # every pattern began as something that was supported
            standing |= self._read({sign: kinds[sign] for sign in supported})
        return {sign: standing[sign] for sign in kinds}

    def _read(self, kinds: Mapping[int, PatternKind]) -> dict[int, Known]:
        tallies = self._store.items.tallies(list(kinds)) if kinds else {}
        either = [sign for sign in tallies if kinds[sign] in ("decision", "recovery")]
        warned = self._store.items.warnings(either) if either else set()
        return {
            sign: Known(tally, "antipattern" if sign in warned else kinds[sign])
            for sign, tally in tallies.items()
        }

    def support(self, signatures: Collection[int]) -> dict[int, Support]:
        """In how many episodes each was seen before that is no pattern; those that never were are left out."""
        standing = self._standing
        unread = [sign for sign in signatures if sign not in standing]
        if unread:
            standing |= dict.fromkeys(unread, NONE)
            standing |= self._store.sightings.support(unread)
        told = {sign: standing[sign] for sign in signatures}
        return {sign: one for sign, one in told.items() if isinstance(one, Support) and one is not NONE}

    def put_support(self, support: Mapping[int, Support]) -> None:
        """Write in how many episodes each was seen."""
        self._store.sightings.put_support(support)
        self._standing.update(support)

    def habits(self, scopes: Collection[str]) -> dict[str, dict[str, float]]:
        """How often each thing was done in each of these kinds of task."""
        unread = [scope for scope in scopes if scope not in self._habits]
        if unread:
            self._habits |= self._store.sightings.habits(self.namespace, unread)
        return {scope: self._habits[scope] for scope in scopes}

    def put_habits(self, habits: Mapping[str, dict[str, float]]) -> None:
        """Write the habits of kinds of task."""
        self._store.sightings.put_habits(self.namespace, habits)
        self._habits.update(habits)

    def see(self, sightings: Sequence[Sighting]) -> None:
        """Know of all that was seen in an episode, which is written with its end."""
        counts = self._counts
        for seen in sightings:
            if seen.signature in counts:
                counts[seen.signature] += 1

    def num_seen(self, signature: int) -> int:
        """In how many episodes a signature was seen."""
        found = self._counts.get(signature)
        if found is None:
            found = self._store.sightings.counts([signature]).get(signature, 0)
            self._counts[signature] = found
        return found

    def efforts(self, like: Episode) -> list[Effort]:
        """What the latest successes of this kind of task cost, newest first."""
        kind = like.task_type, like.domain
        if kind not in self._efforts:
            self._efforts[kind] = self._store.episodes.efforts(like, SIMILAR)
        return self._efforts[kind]

    def add_effort(self, of: Episode, effort: Effort) -> None:
        """Another success of its kind of task was written."""
        known = self._efforts.get((of.task_type, of.domain))
        if known is not None:
            insort(known, effort, key=lambda one: -one.started)
            del known[SIMILAR:]

    def update(self, known: Mapping[int, Known]) -> None:
        """Write what patterns count that are there."""
        self._store.items.update_signed({sign: one.tally for sign, one in known.items()})
        self._standing.update(known)

    def drop(self, signatures: Collection[int]) -> None:
        """Erase patterns; their support is put by the caller."""
        if signatures:
            self._store.items.forget([item.id for item in self._store.items.signed([*signatures]).values()])

    def begin(self, begun: Mapping[int, Known]) -> None:
        """Know of patterns that were written just now."""
        self._standing.update(begun)

    def reread(self, signature: int) -> None:
        """Trust in a pattern has moved by its use."""
        self._standing.pop(signature, None)

    def close(self, stamp: int) -> None:
        """What is kept for the next completion, true at ``stamp``."""
        self.stamp = stamp
        if len(self._standing) > MAX_KEPT:
            self._standing.clear()
            self._habits.clear()
            self._counts.clear()
            self._efforts.clear()


NONE: Final = Support(0, 0.0)
"""What was never seen."""
