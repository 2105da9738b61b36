"""What is erased, what is kept as the only evidence, and what retires. Knows the store by its Protocol."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from esper.errors import EpisodeError
from esper.memory.completion import LEARNED_STEPS
from esper.memory.identity import Clock
from esper.memory.learning.merge import DAY, used
from esper.memory.learning.places import unlearn
from esper.memory.learning.relearn import relearn
from esper.memory.records import Item, Tally
from esper.memory.stores.store import Filter, Store

UNUSED_SHOWN: Final = 20
"""Shown so often and never used: it retires."""
STALE: Final = 180 * DAY
"""Neither seen nor used for so long (nanoseconds): it retires."""
_PAGE: Final = 500


class Swept(msgspec.Struct, frozen=True):
    """What was erased, kept although old (the only evidence of a pattern), and retired; ids."""

    erased: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    retired: tuple[str, ...] = ()


class Forgetting:
    """Erases and retires. Each episode is erased with all that was derived from it, in one transaction."""

    def __init__(self, store: Store, clock: Clock, min_episodes: int) -> None:
        self._store = store
        self._clock = clock
        self._min_episodes = min_episodes

    def forget(self, *, episode: str | None, namespace: str | None) -> int:
        """Erase one episode, or all of a namespace."""
        if (episode is None) == (namespace is None):
            raise EpisodeError("say what to forget: an episode or a namespace, one of them")
        if namespace is not None:
            return self._store.forget_namespace(namespace)
        assert episode is not None
        self._erase(episode)
        return 1

    def _erase(self, id: str) -> None:
        with self._store.transaction():
            found = self._store.episodes.get([id], steps=False).get(id)
            if found is None:
                raise EpisodeError(f"there is no episode {id}")
            signatures = self._store.sightings.of_episode(id)
            relied_on = self._store.exposures.of_episode(id)
            if found.state == "completed":
                steps = tuple(self._store.episodes.tail(id, LEARNED_STEPS))
                unlearn(self._store, msgspec.structs.replace(found, steps=steps))
            self._store.episodes.forget([id])
            relearn(self._store, signatures, min_episodes=self._min_episodes)
            self._recount(relied_on)
            self._store.touch(found.namespace)

    def _recount(self, ids: Iterable[str]) -> None:
        """What earned trust in the erased episode gives it back."""
        items = self._store.items.get(list(ids))
        plain = [item for item in items.values() if item.kind != "pattern"]
        self._store.items.update({item.id: self._earned(item) for item in plain})

    def _earned(self, item: Item) -> Tally:
        told = item.tally
        tally = Tally(occurrences=told.occurrences, shown=told.shown, touched=item.created)
        own = self._store.episodes.get([item.id], steps=False).get(item.id)
        if own is not None and own.outcome is not None:
            reward = own.outcome.reward
            tally = msgspec.structs.replace(tally, successes=reward, failures=1.0 - reward)
        for use in self._store.exposures.rewards(item.id):
            tally = used(tally, use.reward or 0.0, use.at)
        return tally

    def retain(self, namespace: str, older_than: int) -> Swept:
        """Erase old ended episodes, oldest first, one transaction each; one that a pattern cannot spare is kept."""
        before = self._clock() - older_than * 10**9
        erased, kept = [], []
        for id in reversed(self._ended(namespace, before)):
            if self._needed(id):
                kept.append(id)
            else:
                self._erase(id)
                erased.append(id)
        return Swept(tuple(erased), tuple(kept))

    def _ended(self, namespace: str, before: int) -> list[str]:
        """Newest first."""
        filter = Filter(namespace=namespace, until=before)
        found: list[str] = []
        last: str | None = None
        while page := self._store.episodes.find(filter, limit=_PAGE, before=last):
            last = page[-1].id
            found += [one.id for one in page if one.state != "open"]
        return found

    def _needed(self, id: str) -> bool:
        signatures = self._store.sightings.of_episode(id)
        patterns = list(self._store.items.tallies(signatures)) if signatures else []
        counts = self._store.sightings.counts(patterns) if patterns else {}
        return any(count <= self._min_episodes for count in counts.values())

    def maintain(self, namespace: str) -> Swept:
        """Retire patterns and notes that nobody uses; they come back when they are seen or used again."""
        now = self._clock()
        filter = Filter(namespace=namespace, kinds=("pattern", "note"), state="active")
        with self._store.transaction():
            total = sum(self._store.counts(namespace).values())
            unused = [item for item in self._store.items.find(filter, limit=total + 1) if idle(item, now)]
            retired = {item.id: msgspec.structs.replace(item.tally, state="retired") for item in unused}
            self._store.items.update(retired)
            if retired:
                self._store.touch(namespace)
        return Swept(retired=tuple(retired))


def idle(item: Item, now: int) -> bool:
    """Whether it was often shown and never used, or not seen or used for long."""
    tally = item.tally
    last = max(tally.touched, tally.last_used or 0, item.created)
    return (tally.shown >= UNUSED_SHOWN and not tally.used) or now - last > STALE
