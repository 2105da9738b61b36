"""Each decision is settled once, by the event that settles it, with the evidence of its own round."""

from __future__ import annotations

from typing import Any

from esper.events import (
    AnyEvent,
    Attached,
    Cut,
    Ended,
    Folded,
    Judged,
    Refused,
    RolledBack,
    Score,
    Scored,
    Sensed,
    Signal,
    Spared,
)
from esper.growth.decisions import Decision, progress, settled
from esper.growth.episodes import Places, entries
from esper.surgery.site import Port, Site

MLP, GATED = "fc1 mlp(ratio=2.0)", "fc2 gated(ratio=1.0)"


def sensed(step: int) -> Sensed:
    numbers = dict.fromkeys(("variance", "dead_ratio", "correlation", "effective_rank", "gradient_norm"), 0.5)
    return Sensed(
        step=step,
        signals=tuple(Signal(site=s, novelty_gain=1.0, health=0.5, **numbers) for s in ("fc1", "fc2")),
    )


def scored(step: int, *chosen: str) -> Scored:
    scores = [
        Score(
            candidate=name,
            site=name.split(" ")[0],
            gain=2.0,
            r2=0.5 - place / 4,
            score=1.0,
            params=10,
            macs=20,
        )
        for place, name in enumerate((MLP, GATED))
    ]
    return Scored(step=step, scores=tuple(scores), chosen=chosen)


def judged(step: int, candidate: str, *, accepted: bool, kind: str = "graft", gain: float = 0.25) -> Judged:
    numbers: dict[str, Any] = dict.fromkeys(("standard_error", "alpha", "price", "detectable"), 0.01)
    return Judged(
        step=step, candidate=candidate, kind=kind, num_examples=100, gain=gain, lower=gain / 2, host_loss=1.0,
        accepted=accepted, reason="because", **numbers,
    )  # fmt: skip


def attached(step: int, candidate: str) -> Attached:
    return Attached(
        step=step,
        candidate=candidate,
        path="fc1.grafts.0",
        params=10,
        macs=20,
        total_params=30,
        total_macs=60,
    )


def refused(step: int, candidate: str) -> Refused:
    return Refused(step=step, candidate=candidate, reason="no gain")


def all_settled(history: list[AnyEvent]) -> list[Decision]:
    return [one for end in range(1, len(history) + 1) for one in settled(history[:end])]


ROUND = [sensed(10), scored(40, MLP, GATED)]


def test_a_refused_trial_is_settled_at_once_with_its_score_signals_and_verdict():
    history = [*ROUND, judged(70, GATED, accepted=False), refused(70, GATED)]
    (decision,) = all_settled(history)
    assert (decision.candidate, decision.result, decision.tried, decision.rank) == (GATED, "refused", True, 1)
    assert decision.judged == history[2]
    assert decision.score is not None
    assert decision.score.candidate == GATED
    assert set(decision.signals) == {"fc1", "fc2"}
    assert not decision.succeeded


def test_a_round_without_a_trial_is_no_trial():
    (decision,) = all_settled([sensed(10), scored(40), refused(40, MLP)])
    assert (decision.result, decision.tried) == ("refused", False)


def test_a_graft_is_kept_once_the_guard_no_longer_watches_and_only_once():
    history = [*ROUND, judged(70, MLP, accepted=True), attached(70, MLP)]
    assert all_settled(history) == []
    assert all_settled([*history, sensed(120)]) == []
    (decision,) = all_settled([*history, sensed(120), sensed(170), sensed(300), Ended(step=400, reason="")])
    assert (decision.result, decision.step, decision.attached) == ("kept", 70, history[-1])
    assert all_settled([*history, Folded(step=90, total_params=1, num_grafts=1)]) == [decision]


def test_a_graft_that_the_guard_took_out_is_removed_and_never_kept():
    undone = RolledBack(step=90, to_step=70, path="fc1", reason="exploded")
    history = [*ROUND, judged(70, MLP, accepted=True), attached(70, MLP), undone, sensed(400)]
    (decision,) = all_settled(history)
    assert (decision.result, decision.reason, decision.succeeded) == ("removed", "exploded", False)
    assert progress(history) == (0, 1)


def test_what_proved_its_worth_beside_a_better_one_counts_as_a_success():
    history = [*ROUND, judged(70, MLP, accepted=True), judged(70, GATED, accepted=True), attached(70, MLP)]
    (decision,) = all_settled(history)
    assert (decision.candidate, decision.result) == (GATED, "proved")


def test_cuts_are_decisions_too():
    lost = judged(100, "cut fc1", accepted=False, kind="cut")
    won = judged(200, "cut fc1", accepted=True, kind="cut")
    cut = Cut(step=200, site="fc1", params=5, total_params=25, total_macs=50)
    first, second = all_settled([lost, won, cut])
    assert (first.result, first.judged) == ("refused", lost)
    assert (second.result, second.judged) == ("kept", won)


def test_progress_counts_grafts_and_the_refusals_since():
    skipped = Spared(step=5, candidate=MLP, chance=0, upper=0, usual=0, num_episodes=3, evidence=(), runs=())
    history = [refused(1, MLP), attached(2, MLP), refused(3, MLP), skipped, refused(4, GATED)]
    assert progress(history) == (1, 2)


def test_an_episode_tells_the_situation_the_steps_and_the_gain():
    site = Site("fc1", Port("vector", (4,)), Port("vector", (8,)))
    history = [*ROUND, judged(70, MLP, accepted=True), attached(70, MLP), sensed(300)]
    (entry,) = entries(history, Places.of([site]), "digits")
    assert [step.tool for step in entry.steps] == [
        "growth shadow", "growth trial", "growth judge", "growth", "growth",
    ]  # fmt: skip
    assert [step.action for step in entry.steps][1::3] == ["graft mlp", "kept"]
    assert entry.outcome.reward == 1.0
    assert entry.outcome.value == 0.25
    known = {"kind": "vector to vector", "source": "vector 4", "target": "vector 8", "grafts": 0, "r2": 0.5}
    assert known.items() <= entry.context.items()
    assert entry.context["effective_rank"] == 0.5
