"""Patterns from what episodes share: begun when they make a difference, merged ever after. Knows no kind by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

import msgspec

from esper.memory.learning.antipatterns import antipatterns
from esper.memory.learning.approaches import approaches
from esper.memory.learning.choices import choices
from esper.memory.learning.contrast import verdict
from esper.memory.learning.decisions import decisions
from esper.memory.learning.habits import habits_of
from esper.memory.learning.merge import seen
from esper.memory.learning.observation import MAX_OBSERVATIONS, Observation
from esper.memory.learning.patterns import begin, num_clean, tell_instead, towards
from esper.memory.learning.places import Places, with_habits
from esper.memory.learning.recoveries import recoveries
from esper.memory.learning.sequences import sequences
from esper.memory.records import Episode, PatternKind, Tally
from esper.memory.stores.store import Sighting, Store, Support

KINDS: Final[tuple[Callable[[Episode, float], Iterator[Observation]], ...]] = (
    sequences,
    decisions,
    recoveries,
    approaches,
    antipatterns,
)
MIN_EPISODES: Final = 2


def observe(episode: Episode, reward: float) -> dict[int, Observation]:
    """What an ended episode shows, by signature; at most ``MAX_OBSERVATIONS`` distinct ones of each kind."""
    found: dict[int, Observation] = {}
    for kind in KINDS:
        room = len(found) + MAX_OBSERVATIONS
        for one in kind(episode, reward):
            if len(found) >= room:
                break
            found.setdefault(one.signature(episode.namespace), one)
    return found


class _Known(msgspec.Struct, frozen=True):
    """A pattern that is there: what it counts, and what sort it is."""

    tally: Tally
    pattern: PatternKind


def induce(store: Store, episode: Episode, reward: float, *, min_episodes: int = MIN_EPISODES) -> None:
    """Note what the episode shows, merge it into the patterns that are there, and begin those that hold by now.

    Costs look-ups by signature, however many episodes there are. Runs inside the completion's transaction.
    """
    observed = observe(episode, reward)
    if not observed:
        return
    known = _known(store, observed)
    observed = {sign: one for sign, one in observed.items() if sign in known or not one.counter}
    rows = [
        Sighting(sign, one.first, one.last, one.reward) for sign, one in observed.items() if not one.counter
    ]
    store.sightings.add(episode.id, rows + choices(episode, reward))
    support, places = _supported(store, episode, known, observed)
    places.habits = with_habits(store, episode, habits_of(episode, reward))
    held = {
        sign: found
        for sign, told in support.items()
        if told.seen >= min_episodes and (found := _judge(observed[sign], told, places, sign in known))
    }
    kept = {
        sign: one
        for sign, one in known.items()
        if held.get(sign) == one.pattern or one.tally.used or sign not in support
    }
    _merge(store, episode, kept, observed)
    _drop(store, [sign for sign in known if sign not in kept])
    plain = _told_exactly(observed, support, kept, held)
    fresh = {sign: held[sign] for sign in held if sign not in kept and sign not in plain}
    _begin(store, episode, fresh, observed, places)
    left = {sign: told for sign, told in support.items() if sign not in kept}
    store.sightings.put_support(left | places.support)


def _told_exactly(
    observed: Mapping[int, Observation],
    support: Mapping[int, Support],
    known: Mapping[int, _Known],
    held: Mapping[int, PatternKind],
) -> set[int]:
    """Those of tools alone that were never seen but with one and the same action, where that is a pattern."""
    exact = {
        (one.kind, one.first, one.last): known[sign].tally.occurrences + 1
        if sign in known
        else support[sign].seen
        for sign, one in observed.items()
        if one.exact and (sign in known or sign in held)
    }
    return {
        sign
        for sign in held
        if not (one := observed[sign]).exact
        and sign in support
        and support[sign].seen <= exact.get((one.kind, one.first, one.last), 0)
    }


def _judge(one: Observation, told: Support, places: Places, there: bool) -> PatternKind | None:
    return verdict(one, told, places.base(one), places.habits[one.scope], there=there)


def _known(store: Store, observed: Mapping[int, Observation]) -> dict[int, _Known]:
    tallies = store.items.tallies(list(observed))
    either = [sign for sign in tallies if observed[sign].kind in ("decision", "recovery")]
    warned = store.items.warnings(either) if either else set()
    return {
        sign: _Known(tally, "antipattern" if sign in warned else observed[sign].kind)
        for sign, tally in tallies.items()
    }


def _supported(
    store: Store, episode: Episode, known: Mapping[int, _Known], observed: Mapping[int, Observation]
) -> tuple[dict[int, Support], Places]:
    """In how many episodes each was seen, this one among them, that is no pattern yet; and the places of all.

    And of each pattern that was seen twice as often since it was last asked whether it is one.
    """
    places = Places(episode.namespace, observed.values())
    unknown = [sign for sign in observed if sign not in known]
    before = store.sightings.support([*unknown, *places.support])
    places.add(before)
    before |= {
        sign: _support_of(one)
        for sign, one in known.items()
        if not one.tally.occurrences & (one.tally.occurrences + 1)
    }
    none = Support(0, 0.0)
    return {
        sign: Support((told := before.get(sign, none)).seen + 1, told.won + one.reward)
        for sign, one in observed.items()
        if sign in before or sign not in known
    }, places


def _support_of(one: _Known) -> Support:
    tally = one.tally
    weight = tally.successes + tally.failures
    share = tally.successes / weight if weight else 0.0
    return Support(tally.occurrences, tally.occurrences * towards(one.pattern, share))


def _drop(store: Store, signatures: Sequence[int]) -> None:
    """Erase patterns that turned out to be chance; their evidence stays, and they may begin again."""
    if signatures:
        store.items.forget([item.id for item in store.items.signed(signatures).values()])


def _merge(
    store: Store, episode: Episode, known: Mapping[int, _Known], observed: Mapping[int, Observation]
) -> None:
    now = episode.ended or episode.started
    tallies = {
        sign: seen(one.tally, towards(one.pattern, observed[sign].reward), now) for sign, one in known.items()
    }
    store.items.update_signed(tallies)
    cured = [sign for sign in known if observed[sign].instead]
    for item in store.items.signed(cured).values() if cured else ():
        assert item.signature is not None
        if not item.lesson.instead:
            tell_instead(store, item, observed[item.signature].instead, episode)


def _begin(
    store: Store,
    episode: Episode,
    held: Mapping[int, PatternKind],
    observed: Mapping[int, Observation],
    places: Places,
) -> None:
    left = store.sightings.counts(list(held)) if held else {}
    for sign, pattern in held.items():
        one = observed[sign]
        seen = left.get(sign, 0)
        clean = num_clean(store, episode, one, seen) if one.kind == "antipattern" else 0
        if not clean or _judge(one, Support(seen + clean, float(clean)), places, False):
            begin(store, episode, one, pattern, clean=clean)
