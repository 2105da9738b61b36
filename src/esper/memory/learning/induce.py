"""Patterns from what episodes share: begun when they make a difference, merged ever after. Knows no kind by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from esper.memory.learning.antipatterns import antipatterns
from esper.memory.learning.approaches import approaches
from esper.memory.learning.choices import choices
from esper.memory.learning.contrast import verdict
from esper.memory.learning.course import Course
from esper.memory.learning.decisions import decisions
from esper.memory.learning.habits import habits_of
from esper.memory.learning.ledger import Known, Ledger
from esper.memory.learning.merge import seen
from esper.memory.learning.observation import MAX_OBSERVATIONS, Observation, Shown
from esper.memory.learning.patterns import begin, tell_instead, towards, tried
from esper.memory.learning.places import Places, with_habits
from esper.memory.learning.recoveries import recoveries
from esper.memory.learning.review import Observed, Review
from esper.memory.learning.sequences import sequences
from esper.memory.records import Episode
from esper.memory.stores.store import Sighting, Store, Support

KINDS: Final[tuple[Callable[[Course, float], Iterator[Shown]], ...]] = (
    sequences,
    decisions,
    recoveries,
    approaches,
    antipatterns,
)
MIN_EPISODES: Final = 2


def observe(course: Course, reward: float) -> Observed:
    """What an ended episode shows; at most ``MAX_OBSERVATIONS`` distinct ones of each kind."""
    found: Observed = {}
    for kind in KINDS:
        room = len(found) + MAX_OBSERVATIONS
        for one, first, last, won in kind(course, reward):
            if one.signature not in found:
                if len(found) >= room:
                    break
                found[one.signature] = one, Sighting(one.signature, first, last, won)
    return found


def induce(
    store: Store, ledger: Ledger, episode: Episode, reward: float, *, min_episodes: int = MIN_EPISODES
) -> list[Sighting]:
    """Merge what the episode shows into the patterns that are there, and begin those that hold by now; all it shows.

    Costs look-ups by signature, however many episodes there are. Runs inside the completion's transaction.
    """
    course = Course(episode)
    observed = observe(course, reward)
    if not observed:
        return []
    standing = ledger.standing({sign: one.kind for sign, (one, _) in observed.items()})
    places = _places(ledger, observed)
    places.habits = with_habits(ledger, course.scope, habits_of(course, reward))
    review = Review(observed, standing, places, min_episodes)
    _merge(store, ledger, episode, review)
    ledger.drop(review.dropped)
    left = {sign: told for sign, told in review.support.items() if sign not in review.kept}
    ledger.put_support(left | places.support)
    for sign in review.fresh():
        _begin(store, ledger, course, review, sign)
    rows = [seen for one, seen in observed.values() if not one.counter] + choices(episode, reward)
    ledger.see(rows)
    return rows


def _places(ledger: Ledger, observed: Observed) -> Places:
    tried = [(one.condition, seen.reward) for one, seen in observed.values() if one.kind == "recovery"]
    places = Places(ledger.namespace, tried)
    if tried:
        places.add(ledger.support(places.support))
    return places


def _merge(store: Store, ledger: Ledger, episode: Episode, review: Review) -> None:
    now = episode.ended or episode.started
    observed = review.observed
    ledger.update(
        {
            sign: Known(seen(one.tally, towards(one.pattern, observed[sign][1].reward), now), one.pattern)
            for sign, one in review.kept.items()
        }
    )
    cured = [sign for sign in review.kept if observed[sign][0].instead]
    for item in store.items.signed(cured).values() if cured else ():
        assert item.signature is not None
        if not item.lesson.instead:
            tell_instead(store, item, observed[item.signature][0].instead, episode)


def _begin(store: Store, ledger: Ledger, course: Course, review: Review, sign: int) -> None:
    """Of a deed that goes wrong by itself the choices of earlier episodes tell how often it went well."""
    one, shown = review.observed[sign]
    pattern, support = review.held[sign], review.support[sign]
    if one.kind == "antipattern":
        support = _with_clean(ledger, course.episode, one, shown)
        if support.won and not verdict(one, support, review.places.ground(one), there=False):
            return
    item = begin(store, course.episode, one, pattern, support)
    ledger.begin({sign: Known(item.tally, pattern)})


def _with_clean(ledger: Ledger, episode: Episode, one: Observation, shown: Sighting) -> Support:
    broken = ledger.num_seen(one.signature)
    clean = max(ledger.num_seen(tried(episode, shown.first)) - broken, 0)
    return Support(broken + 1 + clean, float(clean))
