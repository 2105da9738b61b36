"""What one episode shows of a pattern, before anybody knows whether it is one."""

from __future__ import annotations

from typing import Final, TypedDict, Unpack

import msgspec

from esper.memory.identity import signature_of
from esper.memory.learning.wording import scope_of
from esper.memory.records import Episode, Lesson, PatternKind

MAX_OBSERVATIONS: Final = 24
"""Of each kind and episode; the first ones count."""


class _More(TypedDict, total=False):
    scope: str
    condition: str
    instead: tuple[str, ...]
    pitfall: str
    counter: bool
    exact: bool
    previous: str


NUM_INTERNED: Final = 8_192
"""So many observations of a kind are kept in the process, since what recurs is what is looked for."""


class Observation(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """When ``condition``, then ``actions``; ``signature`` is equal for equal kind, scope, condition and actions.

    ``counter`` marks one that only speaks against a pattern that is there; it is not written down, since the choices of
    an episode tell as much. ``exact`` actions say what the tools did. ``previous`` is the tool that ran without error
    just before, if any: it is not chosen twice in a row.
    """

    kind: PatternKind
    actions: tuple[str, ...]
    signature: int
    scope: str = ""
    condition: str = ""
    instead: tuple[str, ...] = ()
    pitfall: str = ""
    counter: bool = False
    exact: bool = False
    previous: str = ""

    @classmethod
    def of(
        cls, namespace: str, kind: PatternKind, actions: tuple[str, ...], **more: Unpack[_More]
    ) -> Observation:
        """An observation within a namespace, with its signature."""
        signature = signature_of(namespace, kind, more.get("scope", ""), more.get("condition", ""), *actions)
        return cls(kind=kind, actions=actions, signature=signature, **more)

    def lesson(self, episode: Episode, pattern: PatternKind) -> Lesson:
        """The words of the pattern of this kind that the observation belongs to."""
        lesson = Lesson(
            text="",
            condition=self.condition,
            actions=self.actions,
            instead=self.instead,
            pitfalls=(self.pitfall,) if self.pitfall else (),
            context=episode.situation,
        )
        task_type, domain = (episode.task_type, episode.domain) if self.scope else ("", "")
        return msgspec.structs.replace(lesson, text=worded(pattern, lesson, task_type, domain))


Shown = tuple[Observation, int, int, float]
"""An observation with the numbers of the first and last step that showed it, and its reward in [0, 1]."""


def worded(pattern: PatternKind, lesson: Lesson, task_type: str, domain: str) -> str:
    """A pattern in a sentence; ``task_type`` and ``domain`` say where it holds, empty for everywhere."""
    scope = scope_of(task_type, domain)
    return _WORDING[pattern].format(
        scope=f"In {scope}: " if scope else "",
        condition=lesson.condition,
        when=f"{lesson.condition}: " if lesson.condition else "",
        actions=" → ".join(lesson.actions),
        pitfall=f": {lesson.pitfalls[0]}" if lesson.pitfalls else "",
        instead=f" Instead: {' → '.join(lesson.instead)}." if lesson.instead else "",
    )


_WORDING: Final[dict[PatternKind, str]] = {
    "sequence": "{scope}{actions}",
    "decision": "{scope}{condition}: {actions}",
    "recovery": "{condition}: {actions}",
    "approach": "{scope}for {condition}: {actions}",
    "antipattern": "{scope}{when}avoid {actions}{pitfall}.{instead}",
}
