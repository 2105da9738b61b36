"""Where an open episode stood, and what the next agent must know. Knows the store by its Protocol."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from esper.errors import EpisodeError
from esper.memory.identity import Clock, new_id
from esper.memory.recall.context import num_tokens
from esper.memory.records import Checkpoint, Episode, Step
from esper.memory.stores.store import Store


class HandOff(msgspec.Struct, frozen=True):
    """A text of at most the tokens that were asked for; ``num_left_out`` steps did not fit."""

    episode: str
    text: str
    num_tokens: int
    num_left_out: int


class Checkpoints:
    """Marks in an episode, and packs that hand it over. ``Memory.resume`` goes on with the original context."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    def save(self, episode: str, *, note: str = "") -> Checkpoint:
        """Mark where an open episode stands. Queued steps count only after ``Memory.flush``.

        Raises:
            EpisodeError: it is not there, or has ended.
        """
        if self._found(episode).state != "open":
            raise EpisodeError(f"episode {episode} has ended: only an open one has checkpoints to go on from")
        now = self._clock()
        number = self._store.episodes.last_number(episode)
        checkpoint = Checkpoint(id=new_id(now), episode=episode, number=number, note=note, created=now)
        self._store.catalogue.checkpoint(checkpoint)
        return checkpoint

    def of(self, episode: str) -> list[Checkpoint]:
        """An episode's checkpoints, oldest first."""
        return self._store.catalogue.checkpoints(episode)

    def hand_off(self, episode: str, *, budget_tokens: int = 1_000) -> HandOff:
        """What the next agent must know: task, context and notes, then all failures that fit, then the latest steps.

        Raises:
            EpisodeError: it is not there, or the head alone does not fit.
        """
        found = self._found(episode)
        head = _head(found, self.of(episode))
        if num_tokens(head) > budget_tokens:
            raise EpisodeError(f"the task alone takes {num_tokens(head)} tokens: give a larger budget")
        steps = self._store.episodes.get([episode])[episode].steps
        chosen = _chosen(head, steps, budget_tokens)
        text = _text(head, chosen)
        return HandOff(episode, text, num_tokens(text), len(steps) - len(chosen))

    def _found(self, id: str) -> Episode:
        found = self._store.episodes.get([id], steps=False).get(id)
        if found is None:
            raise EpisodeError(f"there is no episode {id}")
        return found


def _head(episode: Episode, marks: Sequence[Checkpoint]) -> str:
    lines = [f"Task: {episode.task}", *(f"{name}: {value}" for name, value in episode.situation.items())]
    lines += [f"Checkpoint after step {mark.number}: {mark.note}" for mark in marks if mark.note]
    return "\n".join(lines)


def _chosen(head: str, steps: Sequence[Step], budget: int) -> dict[int, Step]:
    """Failures first, newest first; then the other steps, newest first."""
    wanted = sorted(reversed(steps), key=lambda step: step.error is None)
    left = budget - num_tokens(_text(head, {}))
    chosen: dict[int, Step] = {}
    for step in wanted:
        cost = num_tokens(_line(step)) + 1
        if cost > left:
            continue
        left -= cost
        chosen[step.number] = step
    return chosen


def _text(head: str, chosen: dict[int, Step]) -> str:
    return "\n".join([head, "Steps so far:", *(_line(chosen[number]) for number in sorted(chosen))])


def _line(step: Step) -> str:
    done = " ".join(part for part in (step.tool, step.action) if part)
    ending = f"FAILED: {step.error}" if step.error is not None else str(step.result or "done")
    return f"{step.number}. {done}: {ending}"
