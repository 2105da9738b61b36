"""Patterns as lines of a context pack: one a place, with counts, the hopeful before the warnings. Knows no store."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from esper.memory.recall.answers import Answer
from esper.memory.recall.context_lines import Line

_Placed = tuple[int, Answer]


def patterns(
    answers: Sequence[Answer], *, worked: str, avoid: str
) -> tuple[list[Line], frozenset[str], frozenset[str]]:
    """The lines for these two sections, and which actions they advise and which they warn of."""
    hopeful = [one for one in _patterns(answers) if one[1].trust.mean > 0.5]
    steps = {
        (item.lesson.condition, item.lesson.actions[0]): action
        for _, answer in hopeful
        for item in (answer.item,)
        for action in item.lesson.actions
        if item.pattern in ("decision", "recovery")
    }
    advised = frozenset(steps.values())
    warned = {name for one in hopeful if _warns(one[1]) for name in one[1].item.lesson.actions} - advised
    hopeful = [one for one in hopeful if not _warns(one[1]) or warned.issuperset(one[1].item.lesson.actions)]
    exact = [answer for _, answer in hopeful]
    kept = [one for one in hopeful if not any(_says_more(other, one[1]) for other in exact)]
    return _lines(kept, worked, avoid), advised, frozenset(warned)


def _patterns(answers: Sequence[Answer]) -> Iterable[_Placed]:
    return ((place, answer) for place, answer in enumerate(answers) if answer.item.kind == "pattern")


def _warns(answer: Answer) -> bool:
    return answer.item.pattern == "antipattern"


def _says_more(other: Answer, answer: Answer) -> bool:
    """Whether another pattern says the same with what the tools did."""
    ours, theirs = answer.item, other.item
    exact = [name.partition(": ")[0] for name in theirs.lesson.actions]
    return (
        ours.pattern != "antipattern"
        and theirs.pattern != "antipattern"
        and exact == list(ours.lesson.actions)
        and theirs.lesson.actions != ours.lesson.actions
        and theirs.lesson.condition.startswith(ours.lesson.condition)
    )


def _lines(kept: Sequence[_Placed], worked: str, avoid: str) -> list[Line]:
    places: Mapping[str, list[_Placed]] = _by_place(kept)
    return [_line(placed, worked, avoid) for placed in places.values()]


def _by_place(kept: Sequence[_Placed]) -> dict[str, list[_Placed]]:
    """Those of one condition together; what has none, or is an approach, by itself."""
    found: dict[str, list[_Placed]] = defaultdict(list)
    for place, answer in kept:
        lesson = answer.item.lesson
        alone = not lesson.condition or answer.item.pattern == "approach"
        found[answer.id if alone else lesson.condition].append((place, answer))
    return found


def _line(placed: Sequence[_Placed], worked: str, avoid: str) -> Line:
    place = min(place for place, _ in placed)
    good = [answer for _, answer in placed if not _warns(answer)]
    bad = [answer for _, answer in placed if _warns(answer)]
    items = tuple(answer.id for answer in (*good, *bad))
    first = (good or bad)[0]
    if len(placed) == 1 and not (bad and first.item.lesson.condition):
        return Line(worked if good else avoid, f"{first.text.rstrip('.')} ({_counts(first)})", items, place)
    said = [f"{_deeds(answer)} ({_counts(answer)})" for answer in good]
    said += [f"avoid {_deeds(answer)} ({_counts(answer)})" for answer in bad]
    instead = first.item.lesson.instead
    said += [f"instead {' → '.join(instead)}"] if instead and not good else []
    text = f"{first.item.lesson.condition}: {'; '.join(said)}"
    return Line(worked if good else avoid, text, items, place)


def _deeds(answer: Answer) -> str:
    return " → ".join(answer.item.lesson.actions)


def _counts(answer: Answer) -> str:
    """How often it worked, of how often it was seen: a warning's actions worked where the warning was wrong."""
    tally = answer.item.tally
    weight = tally.successes + tally.failures
    share = tally.successes / weight if weight else 0.0
    worked = round(tally.occurrences * (1.0 - share if _warns(answer) else share))
    return f"{worked} of {tally.occurrences}"
