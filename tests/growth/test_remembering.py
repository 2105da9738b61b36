"""A Grower with a memory: the same run to the bit until a trial is spared, and every decision is remembered once."""

from __future__ import annotations

from typing import Any

import pytest

from esper.errors import MemoryStoreError
from esper.events import Attached, Cut, Judged, Refused, Scored, Spared
from esper.growth.episodes import TRIAL
from esper.growth.run_memory import RunMemory
from esper.memory import Memory
from esper.memory.stores.store import Filter
from growth.loops import Lenient, Loop, Script, Stern, difference, kinds, state
from hosts import host

STEPS = 60


@pytest.fixture
def memory():
    with Memory(":memory:") as opened:
        yield opened


def grown(memory: Memory | RunMemory | None, steps: int = STEPS, **options: Any) -> Loop:
    loop = Loop(host("mlp"))
    loop.grow(memory=memory, **options)
    return loop.run(steps)


def trials(loop: Loop) -> int:
    assert loop.grower is not None
    return sum(len(event.chosen) for event in loop.grower.history if isinstance(event, Scored))


@pytest.mark.parametrize("judge", [Stern(), Lenient(), Lenient(cuts=True)], ids=["refuses", "keeps", "cuts"])
def test_a_run_that_writes_is_the_run_without_a_memory_to_the_bit(judge, memory):
    plain = grown(None, judge=judge)
    written = grown(memory, judge=judge)
    assert not difference(state(plain), state(written))
    assert plain.grower.history == written.grower.history
    assert set(plain.grower.state_dict()) < set(written.grower.state_dict())
    assert memory.episodes()


def test_every_trial_of_a_whole_run_becomes_one_episode(memory):
    loop = grown(memory, judge=Lenient(cuts=True))
    loop.grower.finish()
    history = loop.grower.history
    kept = sum(isinstance(event, Attached | Cut) for event in history)
    refused = sum(isinstance(event, Refused) for event in history)
    lost_cuts = sum(isinstance(e, Judged) and e.kind == "cut" and not e.accepted for e in history)
    both = [
        event for event in history if isinstance(event, Judged) and event.kind == "graft" and event.accepted
    ]
    proved = len(both) - sum(isinstance(event, Attached) for event in history)
    assert kept > 1
    assert len(memory.episodes()) == kept + refused + lost_cuts + proved
    assert {episode.state for episode in memory.episodes()} == {"completed"}


def test_what_some_runs_refused_the_next_one_spares(memory):
    for _ in range(3):
        first = grown(RunMemory(memory), 200)
    assert trials(first) >= 6
    loop = grown(memory, 200)
    skipped = [event for event in loop.grower.history if isinstance(event, Spared)]
    assert skipped
    assert trials(loop) < trials(first)
    for event in skipped:
        assert event.num_episodes >= 3
        assert event.upper < 0.25
        assert len(event.runs) >= 1


def test_a_memory_of_success_spares_nothing(memory):
    first = grown(memory, 150, judge=Lenient(), controller=Script(num_trials=1))
    loop = grown(memory, 150, judge=Lenient(), controller=Script(num_trials=1))
    assert "Spared" not in kinds(loop.grower)
    assert loop.grower.history == first.grower.history


def test_a_run_that_goes_on_from_an_earlier_state_remembers_nothing_twice(memory):
    whole = Loop(host("mlp"))
    whole.grow(memory=memory)
    whole.run(20)
    saved = whole.grower.state_dict()
    whole.run(40)
    known = {episode.id for episode in memory.episodes()}
    again = Loop(host("mlp"))
    again.grow(memory=memory)
    again.grower.load_state_dict(saved)
    again.run(40)
    runs = {str(episode.context["run"]) for episode in memory.episodes()}
    assert len(runs) == 1
    assert {episode.id for episode in memory.episodes()} >= known
    keys = [episode.context["key"] for episode in memory.episodes()]
    assert len(keys) == len(set(keys))


def test_a_memory_that_breaks_does_not_stop_the_training(memory, monkeypatch):
    def broken(*_: object, **__: object) -> None:
        raise MemoryStoreError("the disk is full")

    monkeypatch.setattr(memory, "advise", broken)
    with pytest.warns(UserWarning, match="goes on without its memory"):
        loop = grown(memory)
    assert not difference(state(grown(None)), state(loop))


def test_episodes_of_growth_are_found_by_what_was_trained(memory):
    grown(RunMemory(memory, run="monday", trained="digits"))
    (first, *_) = memory.episodes(Filter(all_tags=("monday",), domain="growth"))
    assert first.task.endswith("of digits")
    assert TRIAL in {step.tool for step in memory.get(first.id).steps}
