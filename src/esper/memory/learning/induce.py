"""Patterns from what episodes share: begun when it is more than chance, merged ever after. Knows no kind by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

import msgspec

from esper.memory.identity import new_id
from esper.memory.learning.antipatterns import antipatterns
from esper.memory.learning.approaches import approaches
from esper.memory.learning.choices import choices
from esper.memory.learning.decisions import decisions
from esper.memory.learning.habits import Habits, added, habits_of, is_pattern
from esper.memory.learning.merge import seen, used
from esper.memory.learning.observation import MAX_OBSERVATIONS, Observation
from esper.memory.learning.recoveries import recoveries
from esper.memory.learning.sequences import sequences
from esper.memory.learning.wording import scope
from esper.memory.records import Episode, Item, Lesson, Tally
from esper.memory.stores.store import SearchText, Sighting, Store, Support

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
        room = len(found) + MAX_OBSERVATIONS
        for one in kind(episode, reward):
            if len(found) >= room:
                break
            found.setdefault(one.signature(episode.namespace), one)
    return found


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
    habits = _with_habits(store, episode, habits_of(episode, reward))
    support = _supported(store, known, counted)
    held = {
        sign
        for sign, told in support.items()
        if told.seen >= min_episodes
        and is_pattern(counted[sign], told, habits[counted[sign].scope], there=sign in known)
    }
    kept = {sign: tally for sign, tally in known.items() if sign in held or tally.used or sign not in support}
    _merge(store, episode, kept, counted)
    _drop(store, [sign for sign in known if sign not in kept])
    begun = _enough(store, [sign for sign in support if sign in held and sign not in known], min_episodes)
    store.items.add([_begin(store, episode, sign, counted[sign]) for sign in begun])
    store.sightings.put_support({sign: told for sign, told in support.items() if sign not in kept})


def _supported(
    store: Store, known: Mapping[int, Tally], observed: Mapping[int, Observation]
) -> dict[int, Support]:
    """In how many episodes each was seen, this one among them, that is no pattern yet.

    And of each pattern that was seen twice as often since it was last asked whether it is one.
    """
    before = store.sightings.support([sign for sign in observed if sign not in known])
    before |= {
        sign: _support_of(tally)
        for sign, tally in known.items()
        if not tally.occurrences & (tally.occurrences + 1)
    }
    none = Support(0, 0.0)
    return {
        sign: Support((told := before.get(sign, none)).seen + 1, told.won + one.reward)
        for sign, one in observed.items()
        if sign in before or sign not in known
    }


def _support_of(tally: Tally) -> Support:
    weight = tally.successes + tally.failures
    return Support(tally.occurrences, tally.occurrences * tally.successes / weight if weight else 0.0)


def _enough(store: Store, signatures: Sequence[int], min_episodes: int) -> list[int]:
    """Those whose evidence is still there: support also counts what was forgotten since."""
    left = store.sightings.counts(signatures) if signatures else {}
    return [sign for sign in signatures if left.get(sign, 0) >= min_episodes]


def _drop(store: Store, signatures: Sequence[int]) -> None:
    """Erase patterns that turned out to be chance; their evidence stays, and they may begin again."""
    if signatures:
        store.items.forget([item.id for item in store.items.signed(signatures).values()])


def _with_habits(store: Store, episode: Episode, more: Habits) -> dict[str, dict[str, float]]:
    """Count the episode in, for its kind of task and for all; the habits as they are now."""
    scopes = list(dict.fromkeys(("", scope(episode))))
    before = store.sightings.habits(episode.namespace, scopes)
    now = {name: added(before[name], more) for name in scopes}
    store.sightings.put_habits(episode.namespace, now)
    return now


def unlearn_habits(store: Store, episode: Episode) -> None:
    """Take out of the habits what an episode, given with its steps, put in."""
    if not episode.steps:
        return
    reward = episode.outcome.reward if episode.outcome else 0.0
    scopes = list(dict.fromkeys(("", scope(episode))))
    before = store.sightings.habits(episode.namespace, scopes)
    left = {name: added(before[name], habits_of(episode, reward), sign=-1.0) for name in scopes}
    store.sightings.put_habits(episode.namespace, left)


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
