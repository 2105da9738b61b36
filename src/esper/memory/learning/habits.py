"""What is usual: how often each thing is done, and which patterns are more than that. Knows no store."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

from esper.memory.learning.course import Course
from esper.memory.learning.observation import Observation
from esper.memory.stores.store import Support

LIFT: Final = 2.0
"""A pattern is seen so many times as often as its parts would meet by chance."""
USUAL_WAY: Final = 0.2
"""Or a sequence is found in this share of the episodes of its kind of task."""
USUAL_CHOICE: Final = 0.5
"""Or a decision is taken in this share of the cases."""
KEEP: Final = 0.75
"""One that is there stays while it has this share of what one needs to begin: nothing comes and goes all the time."""
SPLIT: Final = 3.0
"""Standard errors between a pattern's rewards and the usual ones that make it one, however usual it is."""
MIN_SPLIT: Final = 8
MAX_NAMES: Final = 400
"""No more names are counted for a kind of task."""
_EPISODES: Final = "\x1fepisodes"
_REWARD: Final = "\x1freward"
_RUNS: Final = "\x1fruns"
_DEEDS: Final = "\x1fdeeds"
_BROKEN: Final = "\x1fbroken"
_LEARNED: Final = frozenset({"sequence", "decision", "approach"})

Habits = Mapping[str, float]


def habits_of(course: Course, reward: float) -> dict[str, float]:
    """What one episode adds: its tools once a run, the conditions of its decisions, itself and its reward."""
    deeds = set(course.deeds)
    worked = {done for done, step in zip(course.deeds, course.steps, strict=True) if step.error is None}
    counts = {_EPISODES: 1.0, _REWARD: reward, _RUNS: float(len(course.runs)), _DEEDS: float(len(deeds))}
    if len(deeds) > len(worked):
        counts[_BROKEN] = float(len(deeds) - len(worked))
    for name, _, _ in course.runs:
        counts[name] = counts.get(name, 0.0) + 1.0
    for place, condition in enumerate(course.before):
        if course.begins(place):
            counts[condition] = counts.get(condition, 0.0) + 1.0
    return counts


def outcomes(habits: Habits) -> tuple[float, float]:
    """The number of episodes and the sum of their rewards."""
    return habits.get(_EPISODES, 0.0), habits.get(_REWARD, 0.0)


def unbroken(habits: Habits) -> tuple[float, float]:
    """The number of deeds, once an episode each, and of those that ran without error at least once."""
    deeds = habits.get(_DEEDS, 0.0)
    return deeds, deeds - habits.get(_BROKEN, 0.0)


def added(habits: Habits, more: Habits, *, sign: float = 1.0) -> dict[str, float]:
    """Both together; a name is left out when there are ``MAX_NAMES``, or when nothing is left of it."""
    counts = dict(habits)
    for name, count in more.items():
        if name in counts or len(counts) < MAX_NAMES:
            counts[name] = counts.get(name, 0.0) + sign * count
    return {name: count for name, count in counts.items() if count > 0.0} if sign < 0 else counts


def is_pattern(one: Observation, support: Support, habits: Habits, *, there: bool) -> bool:
    """Whether what was seen so often is a pattern: more than chance and often enough, or with an outcome of its own.

    Recoveries and anti-patterns always are: each of them was seen to be right or wrong.
    """
    if one.kind not in _LEARNED:
        return True
    needed = max(min(LIFT * expected(one, habits), _usual(one, habits)), floor(habits))
    return support.seen >= needed * (KEEP if there else 1.0) or _splits(support, habits)


def _usual(one: Observation, habits: Habits) -> float:
    """How often it must be seen to be the usual way, whatever chance would give where there are few tools."""
    if one.kind == "decision":
        return USUAL_CHOICE * habits.get(one.condition, 0.0)
    return USUAL_WAY * habits.get(_EPISODES, 0.0)


def expected(one: Observation, habits: Habits) -> float:
    """How often it would be seen if every tool were chosen by how often it is used, never twice in a row."""
    if one.kind == "approach":
        return 0.0
    total = habits.get(_RUNS, 0.0)
    count = habits.get(one.condition if one.kind == "decision" else one.actions[0], 0.0)
    previous = one.previous
    for name in one.actions if one.kind == "decision" else one.actions[1:]:
        rest = (
            total - habits.get(previous or one.actions[0], 0.0)
            if previous or one.kind == "sequence"
            else total
        )
        count *= habits.get(name, 0.0) / rest if rest > 0 else 0.0
        previous = name
    return count


def floor(habits: Habits) -> float:
    """Two among the first 32 episodes of a kind, then one more each time they double."""
    return math.log2(max(habits.get(_EPISODES, 0.0), 16.0)) - 3.0


def _splits(support: Support, habits: Habits) -> bool:
    episodes = habits.get(_EPISODES, 0.0)
    if support.seen < MIN_SPLIT or not episodes:
        return False
    usual = habits.get(_REWARD, 0.0) / episodes
    error = math.sqrt(max(usual * (1.0 - usual), 0.01) / support.seen)
    return abs(support.won / support.seen - usual) > SPLIT * error
