"""One possible growth: a recipe at a site. Does not know whether it is any good."""

from __future__ import annotations

from dataclasses import dataclass

from esper.recipe import Recipe
from esper.surgery.site import Site


@dataclass(frozen=True)
class Candidate:
    """A recipe at a site, with what it would add to the model."""

    site: Site
    recipe: Recipe
    params: int
    macs: int

    @property
    def name(self) -> str:
        """``<site> <recipe>``, unique within a model."""
        return f"{self.site.name} {self.recipe}"
