"""Patterns from what episodes share: begun when they make a difference, merged ever after. Knows no kind by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final

from esper.memory.learning.antipatterns import antipatterns
from esper.memory.learning.approaches import approaches
from esper.memory.learning.choices import choices
from esper.memory.learning.contrast import verdict
from esper.memory.learning.decisions import decisions
from esper.memory.learning.habits import habits_of
from esper.memory.learning.ledger import NONE, Known, Ledger
from esper.memory.learning.merge import seen
from esper.memory.learning.observation import MAX_OBSERVATIONS, Observation
from esper.memory.learning.patterns import begin, tell_instead, towards, tried
from esper.memory.learning.places import Places, with_habits
from esper.memory.learning.recoveries import recoveries
from esper.memory.learning.sequences import sequences
from esper.memory.records import Episode, PatternKind
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


def induce(
    store: Store, ledger: Ledger, episode: Episode, reward: float, *, min_episodes: int = MIN_EPISODES
) -> None:
    """Note what the episode shows, merge it into the patterns that are there, and begin those that hold by now.

    Costs look-ups by signature, however many episodes there are. Runs inside the completion's transaction.
    """
    observed = observe(episode, reward)
    if not observed:
        return
    known = ledger.known({sign: one.kind for sign, one in observed.items()})
    observed = {sign: one for sign, one in observed.items() if sign in known or not one.counter}
    support, places = _supported(ledger, known, observed)
    places.habits = with_habits(ledger, episode, habits_of(episode, reward))
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
    _merge(store, ledger, episode, kept, observed)
    ledger.drop([sign for sign in known if sign not in kept])
    plain = _told_exactly(observed, support, kept, held)
    fresh = {sign: held[sign] for sign in held if sign not in kept and sign not in plain}
    for sign, pattern in fresh.items():
        _begin(store, ledger, episode, observed[sign], pattern, support[sign], places)
    left = {sign: told for sign, told in support.items() if sign not in kept}
    ledger.put_support(left | places.support)
    rows = [
        Sighting(sign, one.first, one.last, one.reward) for sign, one in observed.items() if not one.counter
    ]
    ledger.see(episode.id, rows + choices(episode, reward))


def _told_exactly(
    observed: Mapping[int, Observation],
    support: Mapping[int, Support],
    known: Mapping[int, Known],
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


def _supported(
    ledger: Ledger, known: Mapping[int, Known], observed: Mapping[int, Observation]
) -> tuple[dict[int, Support], Places]:
    """In how many episodes each was seen, this one among them, that is no pattern yet; and the places of all.

    And of each pattern that was seen twice as often since it was last asked whether it is one.
    """
    places = Places(ledger.namespace, observed.values())
    before = ledger.support([*(sign for sign in observed if sign not in known), *places.support])
    places.add(before)
    before |= {
        sign: _support_of(one)
        for sign, one in known.items()
        if not one.tally.occurrences & (one.tally.occurrences + 1)
    }
    return {
        sign: Support((told := before.get(sign, NONE)).seen + 1, told.won + one.reward)
        for sign, one in observed.items()
        if sign in before or sign not in known
    }, places


def _support_of(one: Known) -> Support:
    tally = one.tally
    weight = tally.successes + tally.failures
    share = tally.successes / weight if weight else 0.0
    return Support(tally.occurrences, tally.occurrences * towards(one.pattern, share))


def _merge(
    store: Store,
    ledger: Ledger,
    episode: Episode,
    known: Mapping[int, Known],
    observed: Mapping[int, Observation],
) -> None:
    now = episode.ended or episode.started
    ledger.update(
        {
            sign: Known(seen(one.tally, towards(one.pattern, observed[sign].reward), now), one.pattern)
            for sign, one in known.items()
        }
    )
    cured = [sign for sign in known if observed[sign].instead]
    for item in store.items.signed(cured).values() if cured else ():
        assert item.signature is not None
        if not item.lesson.instead:
            tell_instead(store, item, observed[item.signature].instead, episode)


def _begin(
    store: Store,
    ledger: Ledger,
    episode: Episode,
    one: Observation,
    pattern: PatternKind,
    support: Support,
    places: Places,
) -> None:
    """Of a deed that goes wrong by itself the choices of earlier episodes tell how often it went well."""
    if one.kind == "antipattern":
        support = _with_clean(ledger, episode, one)
        if support.won and not _judge(one, support, places, False):
            return
    item = begin(store, episode, one, pattern, support)
    assert item.signature is not None
    ledger.begin({item.signature: Known(item.tally, pattern)})


def _with_clean(ledger: Ledger, episode: Episode, one: Observation) -> Support:
    broken = ledger.num_seen(one.signature(episode.namespace))
    clean = max(ledger.num_seen(tried(episode, one)) - broken, 0)
    return Support(broken + 1 + clean, float(clean))
