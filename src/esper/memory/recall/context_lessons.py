"""Episodes as lines of a context pack: one a task, whose advice does not contradict itself. Knows no store."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from esper.memory.learning.reflection import AGAIN, AVOID
from esper.memory.recall.answers import Answer
from esper.memory.recall.context_lines import Line
from esper.memory.records import Episode


class Task(msgspec.Struct, frozen=True):
    """The episodes of one task that were recalled, what they advise, and what they found to fail."""

    text: str
    place: int
    episodes: tuple[Episode, ...]
    advice: tuple[str, ...]
    failed: tuple[str, ...]

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of the episodes."""
        return tuple(one.id for one in self.episodes)


def told_of(
    answers: Sequence[Answer],
    episodes: Mapping[str, Episode],
    *,
    hopeful: frozenset[str],
    harmful: frozenset[str],
) -> list[Task]:
    """The tasks of the answers, best first; no advice against ``hopeful`` actions nor for ``harmful`` ones."""
    groups: dict[str, list[tuple[int, Episode]]] = {}
    for place, answer in enumerate(answers):
        for id in (answer.id, *answer.alike):
            if answer.item.kind == "episode" and id in episodes:
                one = episodes[id]
                groups.setdefault(" ".join(one.task.lower().split()), []).append((place, one))
    return [_task(group, hopeful, harmful) for group in groups.values()]


def _task(group: Sequence[tuple[int, Episode]], hopeful: frozenset[str], harmful: frozenset[str]) -> Task:
    episodes = tuple(one for _, one in group)
    good = {*_said(episodes, AGAIN), *hopeful}
    bad = {*_said(episodes, AVOID), *harmful}
    worked = {_deed(line) for one in episodes if _won(one) for line in _worked(one)}
    ours = good - (bad - hopeful)
    advice = [f"{AGAIN}{name}" for name in _said(episodes, AGAIN) if name in ours]
    advice += [f"{AVOID}{name}" for name in _said(episodes, AVOID) if name not in good | worked]
    met = good | worked | harmful
    failed = [line for one in episodes for line in _failed(one) if not line.startswith(tuple(met))]
    plain = advice or _plain(episodes)
    return Task(
        episodes[0].task, group[0][0], episodes, tuple(dict.fromkeys(plain)), tuple(dict.fromkeys(failed))
    )


def _said(episodes: Iterable[Episode], word: str) -> list[str]:
    lines = [line for one in episodes for line in (one.reflection.advice if one.reflection else ())]
    return list(dict.fromkeys(line.removeprefix(word) for line in lines if line.startswith(word)))


def _plain(episodes: Sequence[Episode]) -> list[str]:
    """Advice that names no action, where all episodes give the same."""
    told = {
        line
        for one in episodes
        for line in (one.reflection.advice if one.reflection else ())
        if not line.startswith((AGAIN, AVOID))
    }
    return sorted(told) if len({_won(one) for one in episodes}) == 1 else []


def _worked(episode: Episode) -> tuple[str, ...]:
    return episode.reflection.worked if episode.reflection else ()


def _failed(episode: Episode) -> tuple[str, ...]:
    """What failed; the reason that was given only where nothing else is known."""
    lines = episode.reflection.failed if episode.reflection else ()
    reason = episode.outcome.reason if episode.outcome else ""
    return tuple(line for line in lines if line != reason) or lines


def _deed(line: str) -> str:
    return line.partition(" (")[0].partition(" cured ")[0]


def _won(episode: Episode) -> bool:
    return episode.outcome is not None and episode.outcome.reward > 0.5


def lessons(tasks: Sequence[Task], *, section: str) -> list[Line]:
    """A line a task: how often it succeeded, and what to do."""
    return [Line(section, _lesson(task), task.ids, task.place) for task in tasks]


def _lesson(task: Task) -> str:
    first = task.episodes[0]
    ending: str = first.outcome.ending if first.outcome else first.state
    if len(task.episodes) > 1:
        ending = f"{sum(map(_won, task.episodes))} of {len(task.episodes)} succeeded"
    advice = "; ".join(task.advice)
    return f"{task.text} ({ending}): {advice}" if advice else f"{task.text} ({ending})"


def pitfalls(tasks: Sequence[Task], *, section: str) -> list[Line]:
    """A line for each thing that failed."""
    return [Line(section, line, task.ids, task.place) for task in tasks for line in task.failed]
