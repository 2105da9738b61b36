"""Patterns from what episodes share: begun at N distinct ones, merged ever after. Knows no kind by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Final

import msgspec

from esper.memory.identity import new_id
from esper.memory.learning.antipatterns import antipatterns
from esper.memory.learning.approaches import approaches
from esper.memory.learning.choices import choices
from esper.memory.learning.decisions import decisions
from esper.memory.learning.merge import seen, used
from esper.memory.learning.observation import MAX_OBSERVATIONS, Observation
from esper.memory.learning.recoveries import recoveries
from esper.memory.learning.sequences import sequences
from esper.memory.records import Episode, Item, Lesson, Tally
from esper.memory.stores.store import SearchText, Sighting, Store

KINDS: Final[tuple[Callable[[Episode, float], Iterator[Observation]], ...]] = (
    sequences,
    decisions,
    recoveries,
    approaches,
    antipatterns,
)
MIN_EPISODES: Final = 2
_MAX_EVIDENCE: Final = 1_000


def observe(episode: Episode, reward: float) -> dict[int, Observation]:
    """What an ended episode shows, by signature; at most ``MAX_OBSERVATIONS`` distinct ones of each kind."""
    found: dict[int, Observation] = {}
    for kind in KINDS:
        fresh = _distinct(kind(episode, reward), episode.namespace)
        for signature, observation in islice(fresh, MAX_OBSERVATIONS):
            found[signature] = observation
    return found


def _distinct(observations: Iterator[Observation], namespace: str) -> Iterator[tuple[int, Observation]]:
    met: set[tuple[object, ...]] = set()
    for observation in observations:
        key = (observation.scope, observation.condition, observation.actions)
        if key not in met:
            met.add(key)
            yield observation.signature(namespace), observation


def induce(store: Store, episode: Episode, reward: float, *, min_episodes: int = MIN_EPISODES) -> None:
    """Note what the episode shows, merge it into the patterns that are there, and begin those seen often enough.

    Costs look-ups by signature, however many episodes there are. Runs inside the completion's transaction.
    """
    observed = observe(episode, reward)
    if not observed:
        return
    known = store.items.tallies(list(observed))
    counted = {sign: one for sign, one in observed.items() if sign in known or not one.counter}
    rows = [Sighting(sign, one.first, one.last, one.reward) for sign, one in counted.items()]
    rows += choices(episode, reward)
    store.sightings.add(episode.id, rows)
    _merge(store, episode, known, counted)
    counts = store.sightings.counts([sign for sign in counted if sign not in known])
    begun = [sign for sign, count in counts.items() if count >= min_episodes]
    store.items.add([_begin(store, episode, sign, counted[sign]) for sign in begun])


def _merge(store: Store, episode: Episode, known: dict[int, Tally], observed: dict[int, Observation]) -> None:
    now = _now(episode)
    store.items.update_signed(
        {sign: seen(tally, observed[sign].reward, now) for sign, tally in known.items()}
    )
    cured = [sign for sign in known if observed[sign].instead]
    for sign, item in store.items.signed(cured).items() if cured else ():
        if not item.lesson.instead:
            lesson = observed[sign].lesson(episode)
            store.items.rewrite(msgspec.structs.replace(item, lesson=lesson), _words(episode, lesson.text))


def _begin(store: Store, episode: Episode, signature: int, one: Observation) -> tuple[Item, SearchText]:
    now = _now(episode)
    lesson = one.lesson(episode)
    item = Item(
        id=new_id(now),
        kind="pattern",
        pattern=one.kind,
        signature=signature,
        lesson=lesson,
        namespace=episode.namespace,
        task_type=episode.task_type if one.scope else "",
        domain=episode.domain if one.scope else "",
        created=now,
        tally=Tally(touched=now),
    )
    return _with_evidence(store, item), _words(episode, lesson.text)


def _with_evidence(store: Store, item: Item) -> Item:
    assert item.signature is not None
    tally = item.tally
    for evidence in store.sightings.evidence(item.signature, _MAX_EVIDENCE):
        tally = seen(tally, evidence.reward, tally.touched)
    return msgspec.structs.replace(item, tally=tally)


def _words(episode: Episode, text: str) -> SearchText:
    return SearchText(title=text, context=context_words(episode), detail=episode.task)


def context_words(episode: Episode) -> str:
    """The situation and tags as words to search."""
    return " ".join([*map(str, episode.situation.values()), *episode.tags])


def _now(episode: Episode) -> int:
    return episode.ended or episode.started


def relearn(store: Store, signatures: Sequence[int], *, min_episodes: int = MIN_EPISODES) -> None:
    """Count patterns anew from the evidence that is left, in the words of an episode that is left.

    Those without enough evidence are erased.
    """
    if not signatures:
        return
    left = store.sightings.counts(signatures)
    for signature, item in store.items.signed(signatures).items():
        told = _told_again(store, signature) if left.get(signature, 0) >= min_episodes else None
        if told is None:
            store.items.forget([item.id])
        else:
            store.items.update({item.id: _recounted(store, item)})
            store.items.rewrite(msgspec.structs.replace(item, lesson=told[0]), told[1])


def _told_again(store: Store, signature: int) -> tuple[Lesson, SearchText] | None:
    """The words of a pattern by its latest evidence; ``None`` if that shows it no more."""
    latest = store.sightings.evidence(signature, 1)[0].episode
    episode = store.episodes.get([latest])[latest]
    one = observe(episode, episode.outcome.reward if episode.outcome else 0.0).get(signature)
    if one is None:
        return None
    lesson = one.lesson(episode)
    return lesson, _words(episode, lesson.text)


def _recounted(store: Store, item: Item) -> Tally:
    before = item.tally
    bare = Tally(shown=before.shown, touched=before.touched)
    tally = _with_evidence(store, msgspec.structs.replace(item, tally=bare)).tally
    for told in store.exposures.rewards(item.id):
        tally = used(tally, told.reward or 0.0, tally.touched)
    return msgspec.structs.replace(tally, last_used=before.last_used)
