"""What came of a run, in plain words: what grew where, what it bought, what was refused and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from esper.events import (
    AnyEvent,
    Attached,
    Cut,
    Ended,
    Folded,
    Judged,
    Merged,
    Pruned,
    Refused,
    RolledBack,
    Spared,
    Widened,
)
from esper.training.run import Record, Result

Change = Attached | Cut | Merged | Widened | Pruned
"""Facts that change the size of the network."""

MAX_REASONS = 4
MAX_RUNS = 3


def verdict(record: Record, events: Iterable[AnyEvent]) -> list[str]:
    """Sentences, most important first; every number in them was measured."""
    events = list(events)
    if record.result is None:
        return [_unfinished(record)]
    return [
        _score(record.result),
        _size(record.result),
        *_growth(record, events),
        *_refusals(events),
        *spared(events),
        *_ends(events),
        *_references(record, events),
    ]


def _unfinished(record: Record) -> str:
    if record.status == "running":
        return "The run is running; there is no verdict yet."
    state = "has failed" if record.status == "failed" else "was interrupted"
    return f"The run {state}; there is no verdict yet. Go on with: esper train --resume {record.id}"


def amount(value: float, metric: str) -> str:
    """An accuracy in per cent, anything else in four figures."""
    return f"{100 * value:.1f} %" if metric == "accuracy" else f"{value:.4g}"


def _score(result: Result) -> str:
    test, held_out = amount(result.test, result.metric), amount(result.held_out, result.metric)
    loss = "" if result.metric == "loss" else f", test loss {result.test_loss:.4g}"
    return f"Test {result.metric} {test} (held out {held_out}){loss}."


def _size(result: Result) -> str:
    params = f"{result.params_start:,} to {result.params_end:,} parameters"
    macs = f"{result.macs_start:,} to {result.macs_end:,} multiply-adds"
    if (result.params_start, result.macs_start) == (result.params_end, result.macs_end):
        return f"The network kept its size: {result.params_end:,} parameters."
    return f"The network went from {params} and from {macs} per example, in {result.seconds:.0f} s."


def told(event: AnyEvent) -> str | None:
    """One line on what an event did to the network; ``None`` when it did nothing to it."""
    match event:
        case Attached():
            site, _, recipe = event.candidate.partition(" ")
            return f"step {event.step:,}: {recipe} grew at {site} (+{event.params:,} parameters)"
        case Cut():
            return f"step {event.step:,}: the own path of {event.site} was no longer needed and went"
        case Merged() | Widened() | Folded():
            return f"step {event.step:,}: {_made_plain(event)}"
        case Pruned():
            return f"step {event.step:,}: {pruned(event)}"
        case RolledBack():
            return f"step {event.step:,}: put back to step {event.to_step:,}: {event.reason}"
        case Refused():
            return f"step {event.step:,}: refused {event.candidate}: {event.reason}"
        case Spared():
            return f"step {event.step:,}: skipped a trial of {event.candidate}: {_refusers([event])}"
        case Ended():
            return f"growth ended at step {event.step:,}: {event.reason}"
    return None


def _made_plain(event: Merged | Widened | Folded) -> str:
    match event:
        case Merged():
            return f"{event.candidate} melted into the layer beside it (−{event.params:,} parameters)"
        case Widened():
            return f"{event.num_grafts} widenings became units of {', '.join(event.layers)}"
    return f"folded into plain PyTorch, {event.total_params:,} parameters"


def pruned(event: Pruned) -> str:
    """What was pruned, and what that cost on held-out data."""
    some = f"{event.num_removed:,} of {event.num_units:,} {event.what} of {event.where}"
    taken = some if event.what in ("units", "heads") else f"the {event.what} {event.where}"
    cost = f"held-out loss {event.increase:+.2g}, margin {event.margin:.2g}"
    return f"pruned {taken}: −{event.params:,} parameters ({cost})"


def _growth(record: Record, events: Sequence[AnyEvent]) -> Iterator[str]:
    if not record.settings.growth:
        yield f"Growth was off: {record.growth_off}." if record.growth_off else "Growth was switched off."
    elif not any(isinstance(event, Attached) for event in events):
        yield "Nothing grew: no candidate proved its worth on held-out data."
    gains = {event.candidate: event for event in events if isinstance(event, Judged) and event.accepted}
    for event in events:
        if isinstance(event, Attached | Cut | Merged | Pruned | RolledBack):
            yield _sentence(event) + (
                _bought(gains.get(event.candidate)) if isinstance(event, Attached) else "."
            )


def _sentence(event: AnyEvent) -> str:
    said = told(event) or ""
    return said[:1].upper() + said[1:]


def _bought(judged: Judged | None) -> str:
    if judged is None:
        return "."
    return (
        f"; it lowered the held-out loss by {judged.gain:.3g} ± {judged.standard_error:.2g} "
        f"on {judged.num_examples:,} examples, at a price of {judged.price:.2g}."
    )


def _refusals(events: Sequence[AnyEvent]) -> Iterator[str]:
    refused = [event for event in events if isinstance(event, Refused)]
    if not refused:
        return
    yield f"Refused without a trace: {len(refused)}."
    counts = Counter((event.candidate, event.reason) for event in refused)
    for (candidate, reason), count in counts.most_common(MAX_REASONS):
        yield f"  {candidate}: {reason}" + (f" ({count} times)" if count > 1 else "")
    if len(counts) > MAX_REASONS:
        yield "  The others stand in the report."


def spared(events: Iterable[AnyEvent]) -> Iterator[str]:
    """What the memory has saved, in one sentence; nothing where it saved nothing."""
    skipped = [event for event in events if isinstance(event, Spared)]
    if skipped:
        trials = "trial" if len(skipped) == 1 else "trials"
        yield f"Skipped {len(skipped)} {trials}: {_refusers(skipped)}."


def _refusers(skipped: Sequence[Spared]) -> str:
    runs = list(dict.fromkeys(run for event in skipped for run in event.runs))
    shown = ", ".join(runs[:MAX_RUNS]) + (f" and {len(runs) - MAX_RUNS} more" if len(runs) > MAX_RUNS else "")
    return f"{'run' if len(runs) == 1 else 'runs'} {shown} refused such trials in situations like it"


def _ends(events: Sequence[AnyEvent]) -> Iterator[str]:
    yield from (f"{_sentence(event)}." for event in events if isinstance(event, Ended))


def network_name(events: Iterable[AnyEvent]) -> str:
    """What the network of a run is called beside other models."""
    return "grown network" if any(isinstance(change, Attached) for change in standing(events)) else "network"


def standing(events: Iterable[AnyEvent]) -> list[Change]:
    """Changes of the network that the guard did not put back."""
    found: list[Change] = []
    for event in events:
        if isinstance(event, Change):
            found.append(event)
        elif isinstance(event, RolledBack):
            found = [change for change in found if change.step < event.to_step]
    return found


def _references(record: Record, events: Sequence[AnyEvent]) -> Iterator[str]:
    result = record.result
    if result is None or not result.baselines:
        return
    scores = {network_name(events): result.test, **result.baselines}
    order = sorted(scores, key=lambda name: scores[name], reverse=record.direction == "higher")
    listing = ", ".join(f"{name} {amount(scores[name], result.metric)}" for name in order)
    yield f"On the same test rows ({result.metric}), best first: {listing}."
    yield "The other models were fitted to the training and the held-out rows together."
