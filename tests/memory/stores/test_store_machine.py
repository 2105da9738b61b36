"""Whatever is done to a store, in whatever order, it holds what a simple model holds."""

from __future__ import annotations

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from esper.memory.records import Outcome, Step, Tally
from esper.memory.stores.opening import open_store
from esper.memory.stores.sqlite.store import SqliteStore
from esper.memory.stores.store import Filter, Sighting
from esper.testing.memory_store import episode, note

NUMBERS = st.integers(1, 6)
WORDS = st.sampled_from(["cake", "bread", "soup"])


class StoreMachine(RuleBasedStateMachine):
    """The model: dictionaries of episodes, of notes, and of sightings."""

    def __init__(self, store=None):
        super().__init__()
        self.store = SqliteStore(":memory:") if store is None else store
        self.is_ours = store is None
        self.episodes, self.notes, self.seen = {}, {}, {}

    @rule(number=NUMBERS, domain=WORDS)
    def start(self, number, domain):
        one = episode(number, domain=domain)
        if one.id not in self.episodes:
            self.store.episodes.add([one])
            self.episodes[one.id] = one

    @precondition(lambda self: any(one.state == "open" for one in self.episodes.values()))
    @rule(data=st.data(), tools=st.lists(WORDS, max_size=3))
    def step(self, data, tools):
        id = data.draw(st.sampled_from(self._open()))
        before = self.episodes[id].steps
        steps = tuple(
            Step(number=len(before) + place, tool=tool) for place, tool in enumerate(tools, start=1)
        )
        self.store.episodes.add_steps([(id, step) for step in steps])
        self.episodes[id] = msgspec.structs.replace(self.episodes[id], steps=before + steps)

    @precondition(lambda self: any(one.state == "open" for one in self.episodes.values()))
    @rule(data=st.data(), share=st.floats(0, 1), signatures=st.sets(st.integers(-3, 3)))
    def finish(self, data, share, signatures):
        one = self.episodes[data.draw(st.sampled_from(self._open()))]
        outcome = Outcome(ending="partial", share=share)
        ended = {
            "state": "completed",
            "ended": one.started + 1,
            "num_steps": len(one.steps),
            "outcome": outcome,
        }
        self.episodes[one.id] = msgspec.structs.replace(one, **ended)
        seen = [Sighting(sign, 1, 1, 1.0) for sign in sorted(signatures)]
        self.store.episodes.finish(self.episodes[one.id], seen)
        self.seen |= {(sign, one.id): 1.0 for sign in signatures}

    @precondition(lambda self: self.episodes)
    @rule(data=st.data())
    def forget(self, data):
        id = data.draw(st.sampled_from(sorted(self.episodes)))
        self.store.episodes.forget([id])
        del self.episodes[id]
        self.seen = {key: reward for key, reward in self.seen.items() if key[1] != id}

    @rule(number=NUMBERS, word=WORDS)
    def write_note(self, number, word):
        item, text = note(number, word)
        if item.id not in self.notes:
            self.store.items.add([(item, text)])
            self.notes[item.id] = item

    @precondition(lambda self: self.notes)
    @rule(data=st.data(), successes=st.floats(0, 9))
    def trust_note(self, data, successes):
        id = data.draw(st.sampled_from(sorted(self.notes)))
        tally = Tally(successes=successes)
        self.store.items.update({id: tally})
        self.notes[id] = msgspec.structs.replace(self.notes[id], tally=tally)

    @precondition(lambda self: self.notes)
    @rule(data=st.data())
    def forget_note(self, data):
        id = data.draw(st.sampled_from(sorted(self.notes)))
        self.store.items.forget([id])
        del self.notes[id]

    @rule(number=NUMBERS)
    def roll_back(self, number):
        try:
            with self.store.transaction():
                self.store.items.add([note(100 + number, "cake")])
                self.store.episodes.add([episode(100 + number)])
                raise KeyError
        except KeyError:
            pass

    @invariant()
    def holds_what_the_model_holds(self):
        assert self.store.episodes.get(sorted(self.episodes)) == {
            id: msgspec.structs.replace(
                one, num_steps=len(one.steps) if one.state == "open" else one.num_steps
            )
            for id, one in sorted(self.episodes.items())
        }
        assert {item.id: item for item in self.store.items.find(Filter())} == self.notes
        for word in ("cake", "bread"):
            found = {hit.item.id for hit in self.store.items.search([word], Filter(), 99)}
            assert found == {id for id, item in self.notes.items() if item.lesson.text == word}
        counts = {sign: sum(key[0] == sign for key in self.seen) for sign in range(-3, 4)}
        assert self.store.sightings.counts(range(-3, 4)) == {
            sign: count for sign, count in counts.items() if count
        }

    def _open(self):
        return sorted(id for id, one in self.episodes.items() if one.state == "open")

    def teardown(self):
        assert self.store.check() == []
        for namespace in self.store.namespaces():
            self.store.forget_namespace(namespace)
        if self.is_ours:
            self.store.close()


StoreMachine.TestCase.settings = settings(max_examples=15, stateful_step_count=20, deadline=None)
TestStoreMachine = StoreMachine.TestCase


def test_a_store_in_postgresql_holds_what_the_model_holds(postgres_url):
    store = open_store(postgres_url)
    fewer = settings(max_examples=5, stateful_step_count=15, deadline=None)
    run_state_machine_as_test(lambda: StoreMachine(store), settings=fewer)
    store.close()
