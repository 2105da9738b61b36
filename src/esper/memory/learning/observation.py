"""What one episode shows of a pattern, before anybody knows whether it is one."""

from __future__ import annotations

from typing import Final

import msgspec

from esper.memory.identity import signature_of
from esper.memory.records import Episode, Lesson, PatternKind

MAX_OBSERVATIONS: Final = 24
"""Of each kind and episode; the first ones count."""


class Observation(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Between steps ``first`` and ``last``: when ``condition``, then ``actions``, with this reward in [0, 1].

    ``counter`` marks one that only speaks against a pattern that is there; it never begins one. ``previous`` is the
    tool that ran without error just before, if any: it is not chosen twice in a row.
    """

    kind: PatternKind
    actions: tuple[str, ...]
    first: int
    last: int
    reward: float
    scope: str = ""
    condition: str = ""
    instead: tuple[str, ...] = ()
    pitfall: str = ""
    counter: bool = False
    previous: str = ""

    def signature(self, namespace: str) -> int:
        """Equal for equal kind, scope, condition and actions within a namespace."""
        return signature_of(namespace, self.kind, self.scope, self.condition, *self.actions)

    def lesson(self, episode: Episode) -> Lesson:
        """The words of the pattern that this observation belongs to."""
        return Lesson(
            text=_WORDING[self.kind].format(
                scope=f"In {self.scope}: " if self.scope else "",
                condition=self.condition,
                actions=" → ".join(self.actions),
                pitfall=f": {self.pitfall}" if self.pitfall else "",
                instead=f" Instead: {' → '.join(self.instead)}." if self.instead else "",
            ),
            condition=self.condition,
            actions=self.actions,
            instead=self.instead,
            pitfalls=(self.pitfall,) if self.pitfall else (),
            context=episode.situation,
        )


_WORDING: Final[dict[PatternKind, str]] = {
    "sequence": "{scope}{actions}",
    "decision": "{condition}: {actions}",
    "recovery": "When {condition}: {actions}",
    "approach": "{scope}for {condition}: {actions}",
    "antipattern": "{scope}avoid {actions}{pitfall}.{instead}",
}
