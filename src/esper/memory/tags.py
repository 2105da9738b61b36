"""Tags of episodes and items. Knows the store by its Protocol."""

from __future__ import annotations

from esper.memory.stores.store import Store


class Tags:
    """Names that group episodes and items; ``Filter(any_tags=..., all_tags=...)`` finds by them."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def add(self, id: str, *names: str) -> None:
        """Tag an episode or item."""
        self._store.catalogue.tag(id, names)

    def remove(self, id: str, *names: str) -> None:
        """Take tags away; those that are not there are passed over."""
        self._store.catalogue.untag(id, names)

    def rename(self, old: str, new: str) -> int:
        """Rename everywhere, merging where ``new`` is there already; how many episodes and items were touched."""
        return self._store.catalogue.rename_tag(old, new)

    def counts(self) -> dict[str, int]:
        """Every tag with the number of its episodes and items, most used first."""
        return self._store.catalogue.tags()
