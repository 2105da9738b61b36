"""What a graft is made of: a blueprint's name and its options. Knows no torch."""

from __future__ import annotations

import hashlib
from typing import Self

import msgspec

Option = bool | int | float | str


class Recipe(msgspec.Struct, frozen=True, order=True):
    """A frozen description from which the same module can always be rebuilt.

    ``options`` is sorted by name, so that equal recipes have equal bytes and one ``id``.
    Sizes among the options are relative to the site (``ratio=2.0``) unless the blueprint says otherwise.
    """

    blueprint: str
    options: tuple[tuple[str, Option], ...] = ()

    @classmethod
    def of(cls, blueprint: str, **options: Option) -> Self:
        """A recipe from keyword options: ``Recipe.of("mlp", ratio=2.0)``."""
        return cls(blueprint, tuple(sorted(options.items())))

    @property
    def id(self) -> str:
        """First 12 hexadecimal digits of the SHA-256 of the canonical JSON form."""
        return hashlib.sha256(msgspec.json.encode(self)).hexdigest()[:12]

    def __str__(self) -> str:
        options = ", ".join(f"{name}={value}" for name, value in self.options)
        return f"{self.blueprint}({options})" if options else self.blueprint
