"""The report of a run: one self-contained page. Knows the files of a run folder, nothing of how they were made.

Python decides what is said (verdict, rounds, which points of a curve are kept); the scripts in ``page/`` draw it.
Everything from the run folder is untrusted text: it is escaped here and only ever set as text by the scripts.
"""

from __future__ import annotations

import base64
import hashlib
import html
import math
import os
from collections.abc import Callable, Iterable, Sequence
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from esper import events as facts
from esper.errors import RunError
from esper.training.run import Measured, Record, RunFolder
from esper.training.verdict import Change, network_name, pruned, spared, standing

MAX_POINTS = 2_000
MAX_WINDOWS = 60
NOT_MEASURED = -8192.0
"""What ``esper.events.Signal`` says of a novelty gain that could not be measured."""

SCRIPTS = ("elements.js", "curves.js", "network.js", "decisions.js", "signals.js", "report.js")

Floats = npt.NDArray[np.float64]
Curve = tuple[list[int], list[float]]
Reduce = Callable[[Floats, Floats], tuple[Floats, Floats]]
Tile = tuple[str, str, str]
OF_NO_ROUND = facts.Sensed | facts.Spared | facts.Widened | facts.Recompiled | facts.Folded | facts.Ended


def write_report(run_folder: Path) -> Path:
    """Write ``report.html`` into the run folder and return its path; an older one is replaced at once or not at all.

    Raises ``RunError`` when ``run.json`` is missing or a file is damaged. A last line that was cut off is left out.
    """
    folder = RunFolder(run_folder)
    page = _render(folder.load(), folder.read_metrics(), _events(folder))
    target, draft = run_folder / "report.html", run_folder / "report.html.part"
    try:
        draft.write_text(page, encoding="utf-8")
        os.replace(draft, target)
    except OSError as error:
        raise RunError(f"cannot write {target}: {error.strerror}; free space or make it writable") from error
    return target


def _events(folder: RunFolder) -> list[facts.AnyEvent]:
    try:
        return folder.read_events()
    except msgspec.ValidationError as error:
        raise RunError(f"{folder.events} is not what this version of esper writes: {error}") from error


# Curves


def thin(steps: Floats, values: Floats, limit: int = MAX_POINTS) -> tuple[Floats, Floats]:
    """At most ``limit`` points of a curve, among them the first, the last, and each stretch's minimum and maximum."""
    if len(steps) <= limit:
        return steps, values
    kept = {0, len(steps) - 1}
    for stretch in np.array_split(np.arange(len(steps)), (limit - 2) // 2):
        kept.update((int(stretch[values[stretch].argmin()]), int(stretch[values[stretch].argmax()])))
    index = sorted(kept)
    return steps[index], values[index]


def smooth(steps: Floats, values: Floats, limit: int = MAX_POINTS) -> tuple[Floats, Floats]:
    """At most ``limit`` means of equal stretches, each averaged with its neighbours within 1 % of the curve.

    The window is centred, and smaller at the two ends: the result lags behind nothing.
    """
    stretches = np.array_split(np.arange(len(steps)), max(1, min(limit, len(steps))))
    x, y = (np.array([axis[stretch].mean() for stretch in stretches]) for axis in (steps, values))
    radii = [min(len(x) // 100, place, len(x) - 1 - place) for place in range(len(x))]
    return x, np.array([y[place - r : place + r + 1].mean() for place, r in enumerate(radii)])


def _curve(pairs: Iterable[tuple[int, float | None]], reduce: Reduce = thin) -> Curve:
    points = np.array([pair for pair in pairs if pair[1] is not None], dtype=np.float64).reshape(-1, 2)
    if not len(points):
        return [], []
    steps, values = reduce(points[:, 0], points[:, 1])
    return [round(step) for step in steps], [float(f"{value:.6g}") for value in values]


def _curves(metrics: Sequence[Measured], events: Sequence[facts.AnyEvent]) -> dict[str, Curve]:
    sizes = {line.step: line.params for line in metrics if line.params is not None}
    sizes |= {fact.step: fact.total_params for fact in events if isinstance(fact, Change)}
    loss = [(line.step, line.loss) for line in metrics]
    return {
        "loss": _curve(loss),
        "smooth": _curve(loss, smooth),
        "held_out_loss": _curve((line.step, line.held_out_loss) for line in metrics),
        "held_out_metric": _curve((line.step, line.held_out_metric) for line in metrics),
        "params": _curve(sorted(sizes.items())),
    }


# Decisions


def rounds(events: Iterable[facts.AnyEvent]) -> list[dict[str, Any]]:
    """Shadow rounds, each with the trials and outcomes that followed it; the first may have no scores."""
    found: list[dict[str, Any]] = []
    for fact in events:
        if isinstance(fact, OF_NO_ROUND):
            continue
        if isinstance(fact, facts.Scored) or not found:
            found.append({"step": fact.step, "scored": None, "trials": [], "outcomes": []})
        if isinstance(fact, facts.Scored):
            found[-1]["scored"] = fact
        else:
            found[-1]["trials" if isinstance(fact, facts.Judged) else "outcomes"].append(fact)
    return found


def _signals(events: Iterable[facts.AnyEvent]) -> list[facts.Sensed]:
    windows = [_measured(fact) for fact in events if isinstance(fact, facts.Sensed)]
    picked = np.unique(np.linspace(0, len(windows) - 1, MAX_WINDOWS).round().astype(int)) if windows else ()
    return [windows[index] for index in picked]


def _measured(window: facts.Sensed) -> facts.Sensed:
    """A novelty gain that could not be measured is shown as missing, as nan is."""
    signals = (
        msgspec.structs.replace(signal, novelty_gain=math.nan)
        if signal.novelty_gain == NOT_MEASURED
        else signal
        for signal in window.signals
    )
    return msgspec.structs.replace(window, signals=tuple(signals))


def kept(events: Iterable[facts.AnyEvent]) -> list[facts.Attached]:
    """The grafts that stayed."""
    return [fact for fact in standing(events) if isinstance(fact, facts.Attached)]


# Words


def amount(number: float, metric: str = "") -> str:
    """``88.0 %`` of an accuracy, ``9,400`` of a count, three figures of anything else."""
    if metric.endswith("accuracy"):
        return f"{100 * number:.1f} %"
    if float(number).is_integer() or abs(number) >= 1_000:
        return f"{number:,.0f}"
    return f"{number:.3g}"


def headline(run: Record, events: Sequence[facts.AnyEvent], reached: int) -> str:
    """The verdict in one sentence; ``reached`` is the last step that was measured."""
    grafts = len(kept(events))
    number = {0: "no graft", 1: "one graft"}.get(grafts, f"{grafts} grafts")
    result = run.result
    if result is None:
        state = {"failed": "Failed", "interrupted": "Interrupted"}.get(run.status, "Still training")
        return f"{state} at step {reached:,} of {run.total_steps:,}: {number} so far."
    score = f"{amount(result.test, result.metric)} test {result.metric} with {result.params_end:,} parameters"
    if not grafts:
        return f"{'Nothing was worth growing' if run.settings.growth else 'Growth was off'}: {score}."
    return f"{number.capitalize()} earned {'their' if grafts > 1 else 'its'} keep: {score}."


def story(run: Record, events: Sequence[facts.AnyEvent]) -> list[str]:
    """The verdict in more sentences: what grew and what it bought, what was cut, put back, refused; who was better."""
    grafts = kept(events)
    refused = sum(isinstance(fact, facts.Refused) for fact in events)
    proposals = "proposal was" if refused == 1 else "proposals were"
    return [
        *([f"Growth was off: {run.growth_off}."] if run.growth_off else []),
        *(_bought(graft, events) for graft in grafts[:3]),
        *([f"{len(grafts) - 3} more followed."] if len(grafts) > 3 else []),
        *(_changed(change) for change in standing(events) if not isinstance(change, facts.Attached)),
        *(_put_back(fact) for fact in events if isinstance(fact, facts.RolledBack)),
        *([f"{refused} {proposals} refused and left no trace."] if refused else []),
        *spared(events),
        *(
            f"Growth ended at step {fact.step:,}: {fact.reason}."
            for fact in events
            if isinstance(fact, facts.Ended)
        ),
        *_comparison(run, events),
    ]


def _bought(graft: facts.Attached, events: Iterable[facts.AnyEvent]) -> str:
    site, _, recipe = graft.candidate.partition(" ")
    sentence = f"At step {graft.step:,} {recipe} was grafted at {site}"
    judged = (fact for fact in events if isinstance(fact, facts.Judged) and fact.step <= graft.step)
    trials = [trial for trial in judged if trial.accepted and trial.candidate == graft.candidate]
    if not trials:
        return f"{sentence}."
    trial = trials[-1]
    return (
        f"{sentence}: on {trial.num_examples:,} held-out examples it lowered the loss by {amount(trial.gain)} "
        f"(at the least {amount(trial.lower)}; the price was {amount(trial.price)})."
    )


def _changed(change: facts.Cut | facts.Merged | facts.Widened | facts.Pruned) -> str:
    if isinstance(change, facts.Widened):
        return f"At the end what was widened became units of the model's own layers, up to {', '.join(change.layers)}."
    if isinstance(change, facts.Merged):
        return f"At the end {change.candidate} melted into the layer beside it."
    if isinstance(change, facts.Pruned):
        return f"At step {change.step:,} Esper {pruned(change)}."
    return f"At step {change.step:,} the own path of {change.site} was cut: the graft had made it useless."


def _put_back(fact: facts.RolledBack) -> str:
    return f"At step {fact.step:,} the guard put back the state of step {fact.to_step:,}: {fact.reason}."


def _comparison(run: Record, events: Sequence[facts.AnyEvent]) -> list[str]:
    result = run.result
    if result is None or not result.baselines:
        return []
    sign = 1 if run.direction == "higher" else -1
    best, score = max(result.baselines.items(), key=lambda pair: sign * pair[1])
    ahead = "is ahead of" if sign * result.test > sign * score else "is not ahead of"
    model = f"{best} ({amount(score, result.metric)})"
    return [f"On the same split the {network_name(events)} {ahead} the best ordinary model, {model}."]


def tiles(run: Record, metrics: Sequence[Measured], events: Sequence[facts.AnyEvent]) -> list[Tile]:
    """The key numbers, of a run that is not finished the last ones: label, value, and what to compare it with."""
    refused = sum(isinstance(fact, facts.Refused) for fact in events)
    grafts = ("Grafts kept", str(len(kept(events))), f"{refused} refused")
    result = run.result
    if result is None:
        return [*_last_measured(run.metric, metrics), grafts]
    held_out = f"{amount(result.held_out, result.metric)} held-out"
    return [
        (f"Test {result.metric}", amount(result.test, result.metric), held_out),
        grafts,
        ("Parameters", *_growth(result.params_start, result.params_end)),
        ("Multiply-adds", *_growth(result.macs_start, result.macs_end)),
        ("Time", f"{result.seconds:,.0f} s", f"{run.total_steps:,} steps"),
    ]


def _last_measured(metric: str, metrics: Sequence[Measured]) -> list[Tile]:
    scores = [(line.step, line.held_out_metric) for line in metrics if line.held_out_metric is not None]
    sizes = [(line.step, line.params) for line in metrics if line.params is not None]
    return [
        *((f"Held-out {metric}", amount(score, metric), f"at step {step:,}") for step, score in scores[-1:]),
        *(("Parameters", f"{params:,}", f"at step {step:,}") for step, params in sizes[-1:]),
    ]


def _growth(start: int, end: int) -> tuple[str, str]:
    ratio = f" (× {end / start:.1f})" if start else ""
    return f"{end:,}", f"from {start:,}{ratio}"


# The page


def _render(run: Record, metrics: Sequence[Measured], events: Sequence[facts.AnyEvent]) -> str:
    page = files("esper.training") / "page"
    source = "\n".join((page / name).read_text(encoding="utf-8") for name in SCRIPTS)
    script = f'"use strict";\n(() => {{\n{source}\n}})();\n'
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return Template((page / "report.html").read_text(encoding="utf-8")).substitute(
        title=html.escape(f"{run.task or 'run'} · Esper report"),
        digest=digest,
        style=(page / "report.css").read_text(encoding="utf-8"),
        facts=_span(fact for fact in (run.task, run.status, _minute(run.created), run.id) if fact),
        headline=html.escape(headline(run, events, metrics[-1].step if metrics else 0)),
        story=html.escape(" ".join(story(run, events))),
        tiles="".join(_tile(*tile) for tile in tiles(run, metrics, events)),
        data=_json_for_html(_payload(run, metrics, events)),
        script=script,
    )


def _payload(run: Record, metrics: Sequence[Measured], events: Sequence[facts.AnyEvent]) -> dict[str, Any]:
    quiet = facts.Sensed | facts.Scored | facts.Judged
    return {
        "run": run,
        "curves": _curves(metrics, events),
        "num_not_finite": sum(line.loss is None and line.step > 0 for line in metrics),
        "marks": [fact for fact in events if not isinstance(fact, quiet)],
        "rounds": rounds(events),
        "standing": standing(events),
        "called": network_name(events),
        "sensed": _signals(events),
    }


def _json_for_html(data: Any) -> str:
    r"""JSON that cannot leave its script element: ``<``, ``>`` and ``&`` rest as ``\u003c`` and so on."""
    text = msgspec.json.encode(data).decode()
    return text.replace("<", r"\u003c").replace(">", r"\u003e").replace("&", r"\u0026")


def _minute(moment: str) -> str:
    """``2026-01-31T09:05:12Z`` to the minute, as people write it."""
    return moment[:16].replace("T", " ")


def _span(texts: Iterable[str]) -> str:
    return "".join(f"<span>{html.escape(text)}</span>" for text in texts)


def _tile(label: str, value: str, note: str) -> str:
    label, value, note = html.escape(label), html.escape(value), html.escape(note)
    return f"<div><dt>{label}</dt><dd>{value}<small>{note}</small></dd></div>"
