"""Relations between episodes and items; those of one type never form a ring. Knows the store by its Protocol."""

from __future__ import annotations

from typing import Final, Literal, get_args

from esper.errors import EpisodeError
from esper.memory.identity import Clock
from esper.memory.records import Relation
from esper.memory.stores.store import Store

RelationType = Literal["parent_of", "depends_on", "follows", "blocks", "duplicates", "references", "related"]
TYPES: Final[tuple[str, ...]] = get_args(RelationType)


class Relations:
    """``add("follows", later, earlier)`` says that later follows earlier."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    def add(self, type: RelationType, source: str, target: str) -> Relation:
        """Relate two episodes or items; one that is there already stays as it is.

        Raises:
            EpisodeError: the type is unknown, an id is not there, or a ring of this type would close.
        """
        if type not in TYPES:
            raise EpisodeError(f"there is no relation {type}: take one of {', '.join(TYPES)}")
        relation = Relation(type=type, source=source, target=target, created=self._clock())
        with self._store.transaction():
            for id in (source, target):
                if not self._there(id):
                    raise EpisodeError(f"there is no episode or item {id}")
            if source in self._reached(type, target):
                raise EpisodeError(
                    f"{source} {type} {target} would close a ring: take the way back away first"
                )
            self._store.catalogue.relate(relation)
        return relation

    def remove(self, type: RelationType, source: str, target: str) -> None:
        """Take a relation away; nothing happens when it is not there."""
        self._store.catalogue.unrelate(Relation(type=type, source=source, target=target))

    def of(self, id: str, *, type: RelationType | Literal[""] = "") -> list[Relation]:
        """Relations from and to an id."""
        found = self._store.catalogue
        return [
            *found.relations(id, direction="from", type=type),
            *found.relations(id, direction="to", type=type),
        ]

    def _there(self, id: str) -> bool:
        return bool(self._store.episodes.get([id], steps=False) or self._store.items.get([id]))

    def _reached(self, type: str, start: str) -> set[str]:
        reached, ahead = {start}, [start]
        while ahead:
            for relation in self._store.catalogue.relations(ahead.pop(), direction="from", type=type):
                if relation.target not in reached:
                    reached.add(relation.target)
                    ahead.append(relation.target)
        return reached
