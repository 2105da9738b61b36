"""What an episode says of a decision of growth, and by which features situations are compared. Pure; writes nothing."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import msgspec

from esper.events import AnyEvent, Judged, Score, Signal
from esper.growth.decisions import Decision, settled
from esper.memory.records import Outcome, Value
from esper.surgery.site import Site

TRIAL: Final = "growth trial"
_SIGNALS: Final = ("dead_ratio", "correlation", "effective_rank", "novelty_gain", "health")
_EVIDENCE: Final = ("gain", "lower", "standard_error", "price", "detectable", "host_loss", "num_examples")
_MANY: Final = 2


class Done(msgspec.Struct, frozen=True):
    """One step of an episode that is written when it is over."""

    tool: str
    action: str
    result: dict[str, Any] | None = None
    error: str | None = None


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One episode, to be written at once. ``key`` is unique within a run."""

    key: str
    task: str
    task_type: str
    context: dict[str, Value]
    steps: tuple[Done, ...]
    outcome: Outcome


@dataclass(frozen=True)
class Places:
    """The sites of a network, by name and in its order."""

    sites: Mapping[str, Site]

    @classmethod
    def of(cls, sites: Iterable[Site]) -> Places:
        """From the sites in the network's order."""
        return cls({site.name: site for site in sites})

    def kind(self, name: str) -> str:
        """What kind of tensor a site reads and what kind it gives; empty for one that is not there."""
        site = self.sites.get(name)
        return "" if site is None else f"{site.source.kind} to {site.target.kind}"

    def features(self, name: str) -> dict[str, Value]:
        """Where a site is, as a share of the network's sites, and its shapes; nothing of one that is not there."""
        site = self.sites.get(name)
        if site is None:
            return {}
        share = list(self.sites).index(name) / max(len(self.sites) - 1, 1)
        return {"position": share, "source": str(site.source), "target": str(site.target)}


def situation(places: Places, score: Score, grafts: int, refused: int) -> dict[str, Value]:
    """The features by which situations are compared; few and coarse, so that there are any alike.

    Of ten sets of features this one spared most refused trials of tasks that had not been seen (17 of 42), and 1 of 30
    that were kept; with shuffled outcomes it spared none. The site's position and the recipe's options made it worse.
    """
    return {
        "kind": places.kind(score.site),
        "grafts": min(grafts, _MANY),
        "refused": min(refused, _MANY),
        "r2": score.r2 if math.isfinite(score.r2) else 0.0,
    }


def entry_of(decision: Decision, places: Places, trained: str) -> Entry:
    """The episode of a decision in a run that trains ``trained``."""
    site, _, recipe = decision.candidate.partition(" ")
    words = f"graft {recipe} at {site}" if decision.kind == "graft" else decision.candidate
    return Entry(
        key=f"{decision.step} {decision.result} {decision.candidate}",
        task=f"{words} of {trained}",
        task_type=decision.kind,
        context={"trained": trained, **_context(decision, places)},
        steps=tuple(_steps(decision)),
        outcome=_outcome(decision),
    )


def entries(history: Sequence[AnyEvent], places: Places, trained: str) -> Iterator[Entry]:
    """The episodes of a whole run, in the order in which they were settled."""
    for end in range(1, len(history) + 1):
        for decision in settled(history[:end]):
            yield entry_of(decision, places, trained)


def recipe_of(candidate: str) -> str:
    """The recipe in a candidate's name."""
    return candidate.partition(" ")[2]


def action_of(candidate: str) -> str:
    """What a trial did: the family of grafts, whatever its options."""
    return f"graft {recipe_of(candidate).partition('(')[0]}"


def _context(decision: Decision, places: Places) -> dict[str, Value]:
    score, place = decision.score, decision.candidate.partition(" ")[0]
    known: dict[str, Value] = {"step": decision.step, "site": place}
    if score is not None:
        known |= situation(places, score, decision.grafts, decision.refused)
        known |= {"recipe": recipe_of(score.candidate), "score": score.score}
        known |= {"params": score.params, "macs": score.macs}
    return {**known, **places.features(place), **_numbers(decision.signals.get(place))}


def _numbers(signal: Signal | None) -> dict[str, Value]:
    values = {} if signal is None else {name: msgspec.structs.asdict(signal)[name] for name in _SIGNALS}
    return {name: value for name, value in values.items() if math.isfinite(value)}


def _steps(decision: Decision) -> Iterator[Done]:
    score, judged = decision.score, decision.judged
    if score is not None:
        yield Done("growth shadow", "score", {"gain": score.gain, "r2": score.r2, "rank": decision.rank})
    if decision.kind == "cut":
        yield Done("growth cut", "train without the path")
    elif decision.kind == "prune":
        yield Done("growth prune", "do without the part")
    elif decision.tried:
        yield Done(TRIAL, action_of(decision.candidate))
    if judged is not None:
        yield Done("growth judge", "compare", _evidence(judged), None if judged.accepted else judged.reason)
    if decision.attached is not None:
        yield Done("growth", "attach", {"path": decision.attached.path})
    yield Done("growth", decision.result, error=None if decision.succeeded else decision.reason)


def _evidence(judged: Judged) -> dict[str, Any]:
    return {name: msgspec.structs.asdict(judged)[name] for name in _EVIDENCE}


def _outcome(decision: Decision) -> Outcome:
    """The held-out gain is the value; what was verified is the judge's word."""
    judged = decision.judged
    value = judged.gain if judged is not None and math.isfinite(judged.gain) else None
    unmade: Literal["abstained", "failure"] = "failure" if decision.tried else "abstained"
    return Outcome(
        ending="success" if decision.succeeded else unmade,
        reason=decision.reason,
        verified=float(decision.succeeded),
        value=value,
    )
