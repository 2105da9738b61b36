"""What every memory store must do. Knows the Protocol only; collected by any runner that knows fixtures by name.

Subclass :class:`StoreConformance` in a test module and give a fixture ``store`` that yields an empty, open store.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from esper.errors import EpisodeError
from esper.memory.records import (
    Checkpoint,
    Episode,
    Exposure,
    Feedback,
    Item,
    Lesson,
    Outcome,
    Relation,
    Score,
    Step,
    Tally,
)
from esper.memory.stores.store import Effort, Filter, SearchText, Sighting, Store, Support

_SECOND = 10**9


def episode(number: int, **fields: object) -> Episode:
    """An open episode that started ``number`` seconds after the epoch."""
    told = {"id": f"episode-{number:04d}", "task": f"task {number}", "started": number * _SECOND} | fields
    return msgspec.convert(told, Episode)


def note(number: int, text: str, **fields: object) -> tuple[Item, SearchText]:
    """A note of this text, as old as its number says."""
    told = {
        "id": f"note-{number:04d}",
        "kind": "note",
        "lesson": Lesson(text=text),
        "created": number * _SECOND,
    }
    return msgspec.convert(told | fields, Item), SearchText(title=text)


def raises(kind: type[Exception], call: Callable[[], object]) -> bool:
    """Whether a call raises this kind of error; any other goes through."""
    try:
        call()
    except kind:
        return True
    return False


class EpisodeConformance:
    """Episodes and steps."""

    def test_an_episode_comes_back_as_it_was_written(self, store: Store) -> None:
        """Equal in every field, tags in order."""
        told = episode(
            1, task_type="fix", domain="ci", context={"depth": 3, "language": "python"}, tags=("a", "b")
        )
        store.episodes.add([told])
        assert store.episodes.get([told.id]) == {told.id: told}

    def test_a_batch_keeps_the_order_that_was_asked_for_and_leaves_out_what_is_missing(
        self, store: Store
    ) -> None:
        """By id, in one call."""
        store.episodes.add([episode(number) for number in (1, 2, 3)])
        asked = ["episode-0003", "nothing", "episode-0001"]
        assert list(store.episodes.get(asked)) == ["episode-0003", "episode-0001"]

    def test_steps_come_back_in_order_and_as_they_were_written(self, store: Store) -> None:
        """Every field, structured values included."""
        steps = [
            Step(
                number=1,
                tool="shell",
                action="ls",
                parameters={"deep": [1, {"x": None}]},
                result="a\x00b",
                at=5,
            ),
            Step(number=2, tool="editor", error="boom", latency=0.25, tokens=7, at=6),
        ]
        store.episodes.add([episode(1)])
        store.episodes.add_steps([("episode-0001", step) for step in reversed(steps)])
        found = store.episodes.get(["episode-0001"])["episode-0001"]
        assert list(found.steps) == steps
        assert store.episodes.tail("episode-0001", 1) == steps[1:]
        assert store.episodes.last_number("episode-0001") == 2

    def test_a_step_of_an_episode_that_is_not_there_is_refused(self, store: Store) -> None:
        """And nothing of its batch is kept."""
        store.episodes.add([episode(1)])
        batch = [("episode-0001", Step(number=1)), ("nothing", Step(number=1))]
        assert raises(EpisodeError, lambda: store.episodes.add_steps(batch))
        assert store.episodes.last_number("episode-0001") == 0

    def test_the_same_step_twice_is_refused(self, store: Store) -> None:
        """The first one stays."""
        store.episodes.add([episode(1)])
        store.episodes.add_steps([("episode-0001", Step(number=1, tool="first"))])
        again = [("episode-0001", Step(number=1, tool="second"))]
        assert raises(EpisodeError, lambda: store.episodes.add_steps(again))
        assert store.episodes.tail("episode-0001", 9)[0].tool == "first"

    def test_an_episode_ends_once(self, store: Store) -> None:
        """The second end is refused."""
        store.episodes.add([episode(1)])
        ended = episode(
            1,
            state="completed",
            ended=3 * _SECOND,
            num_steps=0,
            outcome=Outcome(ending="success", reason="done"),
            score=Score(outcome=0.8),
            credit=(0.5,),
        )
        store.episodes.finish(ended)
        assert store.episodes.get([ended.id])[ended.id] == ended
        assert raises(EpisodeError, lambda: store.episodes.finish(ended))

    def test_an_ended_episode_takes_no_step(self, store: Store) -> None:
        """Not even from a process that does not know of the end."""
        store.episodes.add([episode(1)])
        store.episodes.finish(episode(1, state="abandoned", ended=_SECOND))
        assert raises(EpisodeError, lambda: store.episodes.add_steps([("episode-0001", Step(number=1))]))
        assert store.episodes.last_number("episode-0001") == 0

    def test_episodes_are_listed_newest_first_and_page_by_page(self, store: Store) -> None:
        """Filters hold together; ``before`` continues."""
        store.episodes.add(
            [
                episode(number, domain="ci" if number % 2 else "ops", tags=[f"t{number % 3}"])
                for number in range(1, 8)
            ]
        )
        find = store.episodes.find
        assert [one.id[-1] for one in find(Filter(domain="ci"), limit=2)] == ["7", "5"]
        assert [one.id[-1] for one in find(Filter(domain="ci"), before="episode-0005")] == ["3", "1"]
        assert [one.id[-1] for one in find(Filter(any_tags=("t0", "t1"), domain="ops"))] == ["6", "4"]
        assert [one.id[-1] for one in find(Filter(all_tags=("t0", "t1")))] == []
        assert [one.id[-1] for one in find(Filter(since=3 * _SECOND, until=5 * _SECOND))] == ["4", "3"]

    def test_efforts_are_of_late_successes_of_the_same_kind(self, store: Store) -> None:
        """Failures and other kinds do not count."""
        for number, ending, domain in ((1, "success", "ci"), (2, "failure", "ci"), (3, "success", "ops")):
            one = episode(number, domain=domain)
            store.episodes.add([one])
            ended = {"state": "completed", "ended": one.started + 2 * _SECOND, "num_steps": 4}
            store.episodes.finish(episode(number, domain=domain, outcome=Outcome(ending=ending), **ended))  # type: ignore[arg-type]
        assert store.episodes.efforts(episode(9, domain="ci"), 5) == [Effort(4, 2.0, 0, episode(1).started)]


class ItemConformance:
    """Items, sightings and exposures."""

    def test_items_are_found_by_their_words_whatever_characters_these_hold(self, store: Store) -> None:
        """Stemmed; syntax in a term means nothing."""
        store.items.add([note(1, "the tests were failing at night"), note(2, "bake a cake")])
        found = store.items.search(["test", "fails"], Filter(), 5)
        assert [hit.item.id for hit in found] == ["note-0001"]
        for term in ('"', "*", "a OR b", "NEAR(", "title:cake", "'; DROP TABLE item; --", "^", "-cake"):
            store.items.search([term], Filter(), 5)
        assert store.items.search([], Filter(), 5) == []

    def test_frequencies_count_items(self, store: Store) -> None:
        """Stemmed; 0 for a word that stands nowhere."""
        store.items.add([note(1, "tests test testing"), note(2, "the test"), note(3, "cake")])
        assert store.items.frequencies(["test", "cake", "zebra", '"']) == {
            "test": 2,
            "cake": 1,
            "zebra": 0,
            '"': 0,
        }
        assert store.items.size() >= 3

    def test_a_narrow_filter_finds_what_stands_far_behind(self, store: Store) -> None:
        """However many better ones the filter leaves out."""
        store.items.add([note(number, "cake cake cake") for number in range(30)])
        store.items.add([note(99, "cake in a very long text about other things", namespace="other")])
        found = store.items.search(["cake"], Filter(namespace="other"), 2)
        assert [hit.item.id for hit in found] == ["note-0099"]

    def test_a_filter_leaves_out_what_it_must(self, store: Store) -> None:
        """Namespace, state and kind."""
        store.items.add(
            [note(1, "cake", namespace="a"), note(2, "cake", namespace="b"), note(3, "cake", namespace="b")]
        )
        store.items.update({"note-0003": Tally(state="retired")})
        found = store.items.search(["cake"], Filter(namespace="b", state="active", kinds=("note",)), 5)
        assert [hit.item.id for hit in found] == ["note-0002"]

    def test_a_tally_comes_back_as_it_was_written(self, store: Store) -> None:
        """By id and by signature; how often it was shown is the exposures' own."""
        tally = Tally(successes=2.5, failures=1.0, occurrences=3, used=1, touched=9, last_used=8)
        store.items.add([note(1, "cake", signature=-7)])
        store.items.update_signed({-7: tally})
        assert store.items.tallies([-7, 5]) == {-7: tally}
        assert store.items.get(["note-0001"])["note-0001"].tally == tally

    def test_warnings_are_told_from_other_patterns(self, store: Store) -> None:
        """By signature."""
        warning = note(1, "fire", signature=-7)[0]
        told = msgspec.structs.replace(warning, kind="pattern", pattern="antipattern")
        store.items.add([(told, SearchText(title="fire")), note(2, "cake", signature=5)])
        assert store.items.warnings([-7, 5, 9]) == {-7}

    def test_rewritten_words_are_found_and_old_ones_are_not(self, store: Store) -> None:
        """Lesson and index move together."""
        store.items.add([note(1, "cake")])
        item = store.items.get(["note-0001"])["note-0001"]
        lesson = Lesson(text="bread")
        store.items.rewrite(msgspec.structs.replace(item, lesson=lesson), SearchText(title="bread"))
        assert [hit.item.lesson for hit in store.items.search(["bread"], Filter(), 5)] == [lesson]
        assert store.items.search(["cake"], Filter(), 5) == []

    def test_items_come_by_trust_and_then_by_occurrences(self, store: Store) -> None:
        """Both descending."""
        store.items.add([note(number, "cake") for number in (1, 2, 3)])
        store.items.update({"note-0001": Tally(failures=4.0), "note-0003": Tally(occurrences=2)})
        assert [item.id[-1] for item in store.items.find(Filter())] == ["3", "2", "1"]

    def test_a_forgotten_item_is_not_found_any_more(self, store: Store) -> None:
        """Neither by id nor by words."""
        store.items.add([note(1, "cake"), note(2, "cake")])
        store.items.forget(["note-0001"])
        assert [hit.item.id for hit in store.items.search(["cake"], Filter(), 5)] == ["note-0002"]
        assert store.items.get(["note-0001"]) == {}

    def test_vectors_come_back_by_model(self, store: Store) -> None:
        """One for each item; a new one takes the old one's place."""
        store.items.add([note(1, "cake"), note(2, "bread")])
        store.items.put_vectors("old", {"note-0001": b"\0" * 8})
        store.items.put_vectors("new", {"note-0001": b"\1" * 8})
        assert store.items.vectors("old") == []
        [found] = store.items.vectors("new")
        assert (found.id, found.namespace, found.vector) == ("note-0001", "default", b"\1" * 8)
        assert store.items.vectors("new", after=found.place) == []
        [(place, item)] = store.items.unembedded("new", 5)
        assert (item.id, place > found.place) == ("note-0002", True)
        assert store.items.unembedded("new", 5, after=place) == []

    def test_items_are_looked_up_under_a_filter(self, store: Store) -> None:
        """In the order that was asked for."""
        store.items.add([note(1, "cake", namespace="a"), note(2, "cake", namespace="b")])
        both = ["note-0002", "note-0001"]
        assert list(store.items.get(both)) == both
        assert list(store.items.get(both, filter=Filter(namespace="a"))) == ["note-0001"]

    def test_a_thread_gives_its_last_items_oldest_first(self, store: Store) -> None:
        """Of its namespace only."""
        store.items.add([note(number, str(number), thread="talk") for number in (1, 2, 3)])
        store.items.add([note(4, "4", thread="talk", namespace="other"), note(5, "5")])
        assert [item.id[-1] for item in store.items.thread("default", "talk", 2)] == ["2", "3"]
        assert store.items.thread("default", "", 2) == []

    def test_the_words_of_an_item_are_counted_stemmed_and_whole(self, store: Store) -> None:
        """No syntax in a term means anything; an item that is not there holds none."""
        store.items.add([note(1, "cakes and bread"), note(2, "bread")])
        assert store.items.num_held("note-0001", ["cake", "bread", "ale", 'x" OR "bread', "brea"]) == 2
        assert store.items.num_held("note-0002", []) == 0
        assert store.items.num_held("nothing", ["cake"]) == 0

    def test_a_sighting_counts_once_an_episode(self, store: Store) -> None:
        """And is its evidence, newest first."""
        store.episodes.add([episode(1), episode(2, context={"depth": 3})])
        ended = {"state": "completed", "ended": _SECOND}
        first = [Sighting(5, 1, 2, 0.5), Sighting(-6, 1, 1, 0.0), Sighting(5, 1, 2, 1.0)]
        store.episodes.finish(episode(1, **ended), first)
        store.episodes.finish(episode(2, context={"depth": 3}, **ended), [Sighting(5, 3, 4, 0.5)])
        assert store.sightings.counts([5, -6, 7]) == {5: 2, -6: 1}
        assert [(seen.episode, seen.first, seen.reward) for seen in store.sightings.evidence(5, 9)] == [
            ("episode-0002", 3, 0.5),
            ("episode-0001", 1, 1.0),
        ]
        assert store.sightings.experiences(5, 1)[0].situation == {"depth": 3}
        assert set(store.sightings.of_episode("episode-0001")) == {5, -6}
        assert store.sightings.in_episode("episode-0001") == [Sighting(-6, 1, 1, 0.0), Sighting(5, 1, 2, 1.0)]
        assert store.sightings.in_episode("episode-0003") == []

    def test_support_is_counted_down_when_an_episode_is_forgotten(self, store: Store) -> None:
        """By one, and by its reward; what nobody put is not there."""
        store.episodes.add([episode(1)])
        half = Outcome(ending="partial", share=0.5)
        ended = episode(1, state="completed", ended=_SECOND, outcome=half)
        store.episodes.finish(ended, [Sighting(5, 1, 1, 0.5)])
        store.sightings.put_support({5: Support(3, 2.0), -6: Support(1, 1.0)})
        store.sightings.put_support({-6: Support(2, 1.5)})
        assert store.sightings.support([5, -6, 7]) == {5: Support(3, 2.0), -6: Support(2, 1.5)}
        store.episodes.forget(["episode-0001"])
        assert store.sightings.support([5, -6]) == {5: Support(2, 1.5), -6: Support(2, 1.5)}

    def test_habits_come_back_by_namespace_and_kind_of_task(self, store: Store) -> None:
        """The last ones that were put; a forgotten namespace has none."""
        store.sightings.put_habits("a", {"": {"grep": 2.0}, "fix": {"grep": 1.0}})
        store.sightings.put_habits("a", {"": {"grep": 3.0, "sed": 1.0}})
        store.sightings.put_habits("b", {"": {"vi": 1.0}})
        told = store.sightings.habits("a", ["", "fix", "none"])
        assert told == {"": {"grep": 3.0, "sed": 1.0}, "fix": {"grep": 1.0}, "none": {}}
        store.forget_namespace("a")
        assert store.sightings.habits("a", [""]) == {"": {}}
        assert store.sightings.habits("b", [""]) == {"": {"vi": 1.0}}

    def test_what_was_shown_and_used_is_known(self, store: Store) -> None:
        """Uses without a reward wait for the episode's end."""
        store.episodes.add([episode(1)])
        store.items.add([note(1, "cake"), note(2, "bread")])
        shown = Exposure(
            id="shown", query="food", items=("note-0002", "gone", "note-0001"), episode="episode-0001"
        )
        store.exposures.add([shown])
        store.exposures.use([Feedback(exposure="shown", item="note-0001", at=4)])
        found = store.exposures.get("shown")
        assert found is not None
        assert found.items == ("note-0002", "note-0001")
        assert [told.item for told in store.exposures.pending("episode-0001")] == ["note-0001"]
        store.exposures.use([Feedback(exposure="shown", item="note-0001", reward=1.0, at=5)])
        assert store.exposures.pending("episode-0001") == []
        assert [told.reward for told in store.exposures.rewards("note-0001")] == [1.0]
        assert store.items.get(["note-0001"])["note-0001"].tally.shown == 1
        assert store.exposures.uses("shown") == [
            Feedback(exposure="shown", item="note-0001", reward=1.0, at=5)
        ]

    def test_exposures_are_listed_page_by_page(self, store: Store) -> None:
        """By id, in one namespace."""
        store.exposures.add([Exposure(id=id, query=id, items=()) for id in ("b", "a", "c")])
        store.exposures.add([Exposure(id="aa", query="", items=(), namespace="other")])
        assert [one.id for one in store.exposures.find("default", limit=2)] == ["a", "b"]
        assert [one.id for one in store.exposures.find("default", after="b")] == ["c"]


class StoreConformance(EpisodeConformance, ItemConformance):
    """Everything; subclass this one."""

    def test_a_transaction_that_raises_leaves_nothing_behind(self, store: Store) -> None:
        """Nested or not."""

        def half() -> None:
            with store.transaction():
                store.episodes.add([episode(1)])
                with store.transaction():
                    store.items.add([note(1, "cake")])
                raise KeyError

        assert raises(KeyError, half)
        assert store.episodes.find(Filter()) == []
        assert store.items.search(["cake"], Filter(), 5) == []
        store.episodes.add([episode(1)])
        store.episodes.add_steps([("episode-0001", Step(number=1))])
        assert store.episodes.last_number("episode-0001") == 1

    def test_a_stamp_grows_when_its_namespace_is_touched(self, store: Store) -> None:
        """And that of all with it."""
        before = (store.stamp("a"), store.stamp("b"), store.stamp(None))
        store.touch("a")
        assert store.stamp("a") > before[0]
        assert store.stamp("b") == before[1]
        assert store.stamp(None) > before[2]

    def test_the_size_of_an_episode_grows_by_its_steps(self, store: Store) -> None:
        """In bytes, not in characters."""
        store.episodes.add([episode(1), episode(2)])
        bare = store.episodes.sizes(["episode-0001", "episode-0002", "nothing"])
        assert sorted(bare) == ["episode-0001", "episode-0002"]
        store.episodes.add_steps([("episode-0001", Step(number=1, tool="é" * 100))])
        grown = store.episodes.sizes(["episode-0001", "episode-0002"])
        assert grown["episode-0001"] - bare["episode-0001"] == 200
        assert grown["episode-0002"] == bare["episode-0002"]

    def test_a_forgotten_episode_takes_everything_along(self, store: Store) -> None:
        """Steps, item, sightings, exposures, tags, relations, checkpoints."""
        store.episodes.add([episode(1, tags=("t",)), episode(2)])
        store.items.add([note(1, "cake")])
        store.episodes.add_steps([("episode-0001", Step(number=1))])
        ended = episode(1, state="completed", ended=_SECOND, tags=("t",))
        store.episodes.finish(ended, [Sighting(5, 1, 1, 1.0)])
        store.exposures.add([Exposure(id="shown", query="q", items=("note-0001",), episode="episode-0001")])
        store.catalogue.relate(Relation(type="follows", source="episode-0002", target="episode-0001"))
        store.catalogue.checkpoint(Checkpoint(id="mark", episode="episode-0001", number=1))
        store.episodes.forget(["episode-0001"])
        assert list(store.episodes.get(["episode-0001", "episode-0002"])) == ["episode-0002"]
        assert store.sightings.counts([5]) == {}
        assert store.exposures.get("shown") is None
        assert store.catalogue.tags() == {}
        assert store.catalogue.relations("episode-0002", direction="from") == []
        assert store.catalogue.checkpoints("episode-0001") == []
        assert store.check() == []

    def test_a_forgotten_namespace_is_empty_and_the_others_are_not(self, store: Store) -> None:
        """Episodes and items alike."""
        store.episodes.add([episode(1, namespace="a"), episode(2, namespace="b")])
        store.items.add([note(1, "cake", namespace="a"), note(2, "cake", namespace="b")])
        assert store.namespaces() == ["a", "b"]
        assert store.forget_namespace("a") == 1
        assert store.namespaces() == ["b"]
        assert [one.namespace for one in store.episodes.find(Filter())] == ["b"]
        assert [item.namespace for item in store.items.find(Filter())] == ["b"]

    def test_tags_are_renamed_merged_and_counted(self, store: Store) -> None:
        """Most used first."""
        for subject, names in (("x", ("a", "b")), ("y", ("b",)), ("z", ("c",))):
            store.catalogue.tag(subject, names)
        assert store.catalogue.rename_tag("a", "b") == 1
        store.catalogue.untag("z", ["c", "nothing"])
        assert store.catalogue.tags() == {"b": 2}

    def test_relations_are_found_from_both_ends(self, store: Store) -> None:
        """One that is there stays as it is."""
        told = Relation(type="follows", source="x", target="y", created=4)
        store.catalogue.relate(told)
        store.catalogue.relate(msgspec.structs.replace(told, created=9))
        assert store.catalogue.relations("x", direction="from") == [told]
        assert store.catalogue.relations("y", direction="to", type="follows") == [told]
        assert store.catalogue.relations("y", direction="to", type="blocks") == []

    def test_closing_twice_does_nothing(self, store: Store) -> None:
        """And nothing is written after it."""
        store.close()
        store.close()
