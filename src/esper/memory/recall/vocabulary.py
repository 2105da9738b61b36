"""How common words are, and which of them a search can spare. Knows the store by its Protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from esper.memory.recall.ranking import informative
from esper.memory.recall.words import MAX_TERMS
from esper.memory.stores.store import Store

MATCHES: Final = 2_000
"""The rarest terms are searched for until they stand in so many items together; the rest tell little and cost much."""
_GROWTH: Final = 1.1
_NUM_KEPT: Final = 20_000


class Vocabulary:
    """Keeps the frequencies of words that were asked for, until the memory has grown by a tenth."""

    def __init__(self, store: Store, *, matches: int = MATCHES) -> None:
        self._store = store
        self._matches = matches
        self._kept: dict[str, int] = {}
        self._size = 0

    def telling(self, terms: Sequence[str]) -> list[str]:
        """The terms worth searching for, in their order: all while the memory is small, and never none of them.

        Of a long question the ``MAX_TERMS`` rarest are.
        """
        size = self._store.items.size()
        if size <= self._matches and len(terms) <= MAX_TERMS:
            return list(terms)
        counts = self._counts(terms, size)
        chosen = set(informative(counts, size) if len(terms) > MAX_TERMS else terms)
        if size > self._matches:
            chosen &= self._rare(counts)
        return [term for term in terms if term in chosen]

    def frequencies(self, terms: Sequence[str]) -> dict[str, int]:
        """In how many items each term stands, as of lately."""
        return self._counts(terms, self._store.items.size())

    def _rare(self, counts: Mapping[str, int]) -> set[str]:
        chosen: set[str] = set()
        total = 0
        for term in sorted(counts, key=counts.__getitem__):
            total += counts[term]
            if chosen and total > self._matches:
                break
            chosen.add(term)
        return chosen

    def _counts(self, terms: Sequence[str], size: int) -> dict[str, int]:
        if size > self._size * _GROWTH or len(self._kept) > _NUM_KEPT:
            self._kept, self._size = {}, size
        new = [term for term in terms if term not in self._kept]
        self._kept |= self._store.items.frequencies(new)
        return {term: self._kept[term] for term in terms}
