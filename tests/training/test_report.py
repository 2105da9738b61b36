"""The report of a run: what it says, that it is one inert file, and (with chromium) that a browser shows it."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import math
import random
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esper import events
from esper.errors import RunError
from esper.training import report

SITES = ("l1", "l2", "l3")
RECIPES = ("conv1d(channels=25)", "mlp(ratio=2.0)", "gated(ratio=1.0)", "gru(ratio=0.5)")
GRAFT = (
    ("body.0", "Conv1d", [25, 20], 150),
    ("body.1", "ReLU", [25, 20], 0),
    ("body.2", "Conv1d", [25, 10], 1_900),
    ("out", "Linear", [32], 5_964),
)
EVIL = "</script><script>window.hacked=1</script><img src=x onerror=window.hacked=1>\"'&$title <!--"


# A run shaped like MNIST-1D: an MLP of 32 units grows a convolution beside l1, whose own path is then cut.


def _network(*, grown: bool) -> list[dict[str, Any]]:
    trunk = [
        {"name": "l1", "type": "Linear", "shape_out": [32], "params": 1_312},
        {"name": "act1", "type": "ReLU", "shape_out": [32], "params": 0},
        {"name": "l2", "type": "Linear", "shape_out": [32], "params": 1_056},
        {"name": "act2", "type": "ReLU", "shape_out": [32], "params": 0},
        {"name": "l3", "type": "Linear", "shape_out": [10], "params": 330},
    ]
    if not grown:
        return trunk
    inside = ((f"l1.grafts.0.{name}", kind, shape, params) for name, kind, shape, params in GRAFT)
    return [*trunk[1:], *(_graft_layer(*layer) for layer in inside)]


def _graft_layer(path: str, kind: str, shape: list[int], params: int) -> dict[str, Any]:
    return {"name": path, "type": kind, "shape_out": shape, "params": params, "graft": True, "path": path}


def _run() -> dict[str, Any]:
    return {
        "id": "7f3a91c2", "task": "mnist1d", "status": "finished", "seed": 3, "created": "2025-11-07T14:22:31Z",
        "settings": {"source": "mnist1d", "seed": 3, "total_steps": None, "growth": True, "threads": 2},
        "versions": {"esper": "0.1.0", "torch": "2.13.0", "python": "3.11.9", "numpy": "2.3.4"},
        "data_hash": "sha256:9b1f0cc2e4a7d1", "total_steps": 6_000, "metric": "accuracy", "direction": "higher",
        "result": {"metric": "accuracy", "test": 0.881, "held_out": 0.872, "test_loss": 0.412, "params_start": 2_698,
                   "params_end": 9_400, "macs_start": 2_624, "macs_end": 62_414, "seconds": 71.4,
                   "baselines": {"logistic regression": 0.322, "gradient boosting": 0.689}},
        "network_before": _network(grown=False), "network_after": _network(grown=True),
    }  # fmt: skip


def _metrics(*, steps: int = 6_000) -> list[dict[str, Any]]:
    noise = random.Random(0)
    lines: list[dict[str, Any]] = [
        {"step": 0, "loss": None, "held_out_loss": 2.41, "held_out_metric": 0.1, "params": 2_698}
    ]
    for step in range(1, steps + 1):
        grown = 1 - math.exp(-max(0, step - 900) / 900)
        floor = 1.05 * (1 - grown) + 0.31 * grown
        loss = floor + (2.3 - floor) * math.exp(-step / 260) - 0.24 * max(0.0, step / steps - 0.6)
        line: dict[str, Any] = {
            "step": step,
            "lr": 0.002,
            "loss": max(0.02, loss * (1 + noise.gauss(0, 0.11))),
        }
        if step % 100 == 0:
            line |= {"held_out_loss": loss + 0.06 + 0.05 * step / steps + noise.gauss(0, 0.01)}
            line |= {"held_out_metric": 1 - 0.4 * (loss + 0.06) + noise.gauss(0, 0.004)}
            line |= {"params": 2_698 if step < 900 else 10_712 if step < 1_500 else 9_400}
        lines.append(line)
    return lines


def _sensed(step: int) -> events.Sensed:
    wave = random.Random(step)
    grown = step > 900
    return events.Sensed(
        step=step,
        signals=tuple(
            events.Signal(
                site=site,
                variance=0.4 + place + wave.gauss(0, 0.04),
                dead_ratio=max(0.0, 0.22 - 0.05 * place + wave.gauss(0, 0.02)),
                correlation=0.3 + 0.1 * place + wave.gauss(0, 0.02),
                effective_rank=0.55 + 0.1 * grown - 0.1 * place + wave.gauss(0, 0.02),
                gradient_norm=0.02 * 4**place * math.exp(-step / 4_000),
                novelty_gain=(0.4 if site == "l1" and not grown else 0.03) * math.exp(-step / 6_000)
                + abs(wave.gauss(0, 0.004)),
                health=min(1.0, 0.45 + 0.3 * grown + 0.08 * place + wave.gauss(0, 0.02)),
            )
            for place, site in enumerate(SITES)
        ),
    )


def _scored(step: int, strength: float, chosen: int) -> events.Scored:
    wave = random.Random(step)
    scores = []
    for place, site in enumerate(SITES):
        for rank, recipe in enumerate(RECIPES):
            r2 = strength * 0.6 / (1 + place) / (1 + rank) - 0.03 + wave.gauss(0, 0.01)
            gain = strength * 0.5 / (1 + 0.6 * place) / (1 + 0.5 * rank)
            scores.append(
                events.Score(
                    candidate=f"{site} {recipe}",
                    site=site,
                    gain=gain,
                    r2=r2,
                    score=gain * max(r2, 0),
                    params=8_014 - 1_700 * rank,
                    macs=60_000 - 15_000 * rank,
                )
            )
    scores.sort(key=lambda score: -score.score)
    return events.Scored(
        step=step, scores=tuple(scores), chosen=tuple(score.candidate for score in scores[:chosen])
    )


def _judged(
    step: int, candidate: str, gain: float, error: float, accepted: bool, **more: Any
) -> events.Judged:
    known = {"kind": "graft", "price": 0.012, "host_loss": 1.041, "alpha": 0.00125} | more
    lower = gain - 3.03 * error
    certain = f"gain {gain:.4g}, at least {lower:.4g}, above the price {known['price']:.4g}"
    doubtful = (
        f"gain {gain:.4g} is not certain: it may be as low as {lower:.4g}, the price is {known['price']:.4g}"
    )
    return events.Judged(
        step=step,
        candidate=candidate,
        num_examples=500,
        gain=gain,
        standard_error=error,
        lower=lower,
        accepted=accepted,
        reason=certain if accepted else doubtful,
        detectable=known["price"] + 3.7 * error,
        **known,
    )


def _attached(step: int, candidate: str, path: str, *, total_params: int = 10_712) -> events.Attached:
    return events.Attached(
        step=step,
        candidate=candidate,
        path=path,
        params=8_014,
        macs=61_102,
        total_params=total_params,
        total_macs=63_726,
    )


def _refused(judged: events.Judged) -> list[events.AnyEvent]:
    return [judged, events.Refused(step=judged.step, candidate=judged.candidate, reason=judged.reason)]


def _events() -> list[events.AnyEvent]:
    over_budget = "its parameters would exceed the budget of 10,792"
    story: list[events.AnyEvent] = [
        _scored(600, 1.0, 2),
        _judged(900, "l1 conv1d(channels=25)", 0.241, 0.0305, True),
        *_refused(_judged(900, "l1 mlp(ratio=2.0)", 0.031, 0.0142, False)),
        _attached(900, "l1 conv1d(channels=25)", "l1.grafts.0"),
        _judged(1_500, "cut l1", -0.0012, 0.0021, True, kind="cut", price=-0.012, host_loss=0.571),
        events.Cut(step=1_500, site="l1", params=1_312, total_params=9_400, total_macs=62_414),
        _scored(1_800, 0.3, 1),
        *_refused(_judged(2_100, "l2 mlp(ratio=2.0)", 0.008, 0.0058, False, host_loss=0.508)),
        _scored(2_700, 0.16, 0),
        events.Refused(step=2_700, candidate="l2 gated(ratio=1.0)", reason=over_budget),
        events.Ended(step=3_600, reason="60 % of the steps are over"),
        events.Folded(step=6_000, total_params=9_400, num_grafts=1),
    ]
    return sorted([*story, *(_sensed(step) for step in range(100, 3_601, 100))], key=lambda fact: fact.step)


def _write(
    folder: Path, run: dict[str, Any], metrics: list[dict[str, Any]], facts: list[events.AnyEvent]
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.json").write_text(json.dumps(run))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in metrics))
    (folder / "events.jsonl").write_bytes(b"".join(msgspec.json.encode(fact) + b"\n" for fact in facts))
    return folder


def synthetic_run(folder: Path, **changes: Any) -> Path:
    """A finished run folder; ``changes`` replace keys of ``run.json``."""
    return _write(folder, _run() | changes, _metrics(), _events())


def _data(page: Path) -> dict[str, Any]:
    text = page.read_text()
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert found
    data: dict[str, Any] = json.loads(found[1])
    return data


def _text(page: Path) -> str:
    return page.read_text().split('<script type="application/json"')[0]


# What it says


def test_headline_and_story_say_what_grew_what_it_bought_and_what_was_refused(tmp_path: Path) -> None:
    text = _text(report.write_report(synthetic_run(tmp_path)))
    assert "One graft earned its keep: 88.1 % test accuracy with 9,400 parameters." in text
    assert "At step 900 conv1d(channels=25) was grafted at l1" in text
    assert "lowered the loss by 0.241 (at the least 0.149; the price was 0.012)" in text
    assert "At step 1,500 the own path of l1 was cut" in text
    assert "3 proposals were refused and left no trace." in text
    assert "Growth ended at step 3,600: 60 % of the steps are over." in text
    assert "is ahead of the best ordinary model, gradient boosting (68.9 %)" in text


def test_tiles_show_the_key_numbers_with_what_to_compare_them_to(tmp_path: Path) -> None:
    text = _text(report.write_report(synthetic_run(tmp_path)))
    assert "<dt>Test accuracy</dt><dd>88.1 %<small>87.2 % held-out</small></dd>" in text
    assert "<dt>Parameters</dt><dd>9,400<small>from 2,698 (× 3.5)</small></dd>" in text
    assert "<dt>Multiply-adds</dt><dd>62,414<small>from 2,624 (× 23.8)</small></dd>" in text
    assert "<dt>Time</dt><dd>71 s<small>6,000 steps</small></dd>" in text


@pytest.mark.parametrize(
    ("metric", "direction", "baselines", "sentence"),
    [
        (
            "rmse",
            "lower",
            {"linear": 2.0, "gradient boosting": 1.0},
            "is ahead of the best ordinary model, gradient boosting (1)",
        ),
        ("rmse", "lower", {"linear": 0.25}, "is not ahead of the best ordinary model, linear (0.25)"),
        ("r2", "higher", {"linear": 0.95}, "is not ahead of the best ordinary model, linear (0.95)"),
    ],
)
def test_an_ordinary_model_that_wins_is_said_to_win(
    tmp_path: Path, metric: str, direction: str, baselines: dict[str, float], sentence: str
) -> None:
    result = _run()["result"] | {"metric": metric, "baselines": baselines}
    page = report.write_report(synthetic_run(tmp_path, result=result, metric=metric, direction=direction))
    assert sentence in _text(page)


def test_a_run_without_growth_does_not_claim_that_nothing_was_worth_it(tmp_path: Path) -> None:
    settings_ = _run()["settings"] | {"growth": False}
    text = _text(report.write_report(_write(tmp_path, _run() | {"settings": settings_}, [], [])))
    assert "Growth was off: 88.1 % test accuracy" in text
    assert "the network is ahead" in text


def test_a_run_in_which_nothing_grew_says_so(tmp_path: Path) -> None:
    result = _run()["result"] | {"baselines": {}, "macs_start": 0}
    ended = events.Ended(step=600, reason="5 refused rounds in a row")
    page = report.write_report(_write(tmp_path, _run(), _metrics(steps=10), [ended]))
    assert "On the same split the network is ahead of" in _text(page)
    page = report.write_report(_write(tmp_path, _run() | {"result": result}, _metrics(steps=10), [ended]))
    assert "Nothing was worth growing: 88.1 % test accuracy with 9,400 parameters." in _text(page)
    assert "ordinary model" not in _text(page)


@pytest.mark.parametrize(
    ("status", "words"), [("running", "Still training"), ("interrupted", "Interrupted"), ("failed", "Failed")]
)
def test_an_unfinished_run_shows_how_far_it_came(tmp_path: Path, status: str, words: str) -> None:
    run = _run() | {"status": status, "result": None, "network_after": None}
    facts = [fact for fact in _events() if fact.step <= 1_200]
    page = report.write_report(_write(tmp_path, run, _metrics(steps=6_000)[:1_201], facts))
    assert f"{words} at step 1,200 of 6,000: one graft so far." in _text(page)
    assert "<dt>Parameters</dt><dd>10,712<small>at step 1,200</small></dd>" in _text(page)
    assert "1 proposal was refused" in _text(page)


def test_a_run_that_has_only_begun_has_a_page(tmp_path: Path) -> None:
    run = _run() | {"status": "running", "result": None, "network_before": None, "network_after": None}
    (tmp_path / "run.json").write_text(json.dumps(run))
    page = report.write_report(tmp_path)
    assert "Still training at step 0 of 6,000: no graft so far." in _text(page)
    assert _data(page)["curves"]["loss"] == [[], []]


def test_many_grafts_are_told_in_short_and_those_put_back_are_not_counted(tmp_path: Path) -> None:
    attached = [_attached(100 * n, f"l{n} mlp(ratio=1.0)", f"l{n}.grafts.0") for n in range(1, 7)]
    undone = events.RolledBack(step=650, to_step=600, path="l6", reason="the loss became infinite")
    page = report.write_report(_write(tmp_path, _run(), [], [*attached, undone]))
    assert "5 grafts earned their keep" in _text(page)
    assert "At step 100 mlp(ratio=1.0) was grafted at l1. " in _text(page)
    assert "2 more followed." in _text(page)
    assert "At step 650 the guard put back the state of step 600: the loss became infinite." in _text(page)
    assert [fact["path"] for fact in _data(page)["standing"]] == [f"l{n}.grafts.0" for n in range(1, 6)]


# What it carries


def test_each_decision_stands_in_the_round_that_led_to_it(tmp_path: Path) -> None:
    data = _data(report.write_report(synthetic_run(tmp_path)))
    first, second, third = data["rounds"]
    assert [trial["kind"] for trial in first["trials"]] == ["graft", "graft", "cut"]
    assert [fact["type"] for fact in first["outcomes"]] == ["Refused", "Attached", "Cut"]
    assert len(first["scored"]["scores"]) == 12
    assert first["scored"]["chosen"] == ["l1 conv1d(channels=25)", "l1 mlp(ratio=2.0)"]
    assert second["trials"][0]["accepted"] is False
    assert third["trials"] == []
    assert [mark["type"] for mark in data["marks"]] == [
        "Refused",
        "Attached",
        "Cut",
        "Refused",
        "Refused",
        "Ended",
        "Folded",
    ]


def test_a_refusal_before_any_scores_has_a_round_of_its_own() -> None:
    refused = events.Refused(step=5, candidate="l1 mlp", reason="dead at birth")
    assert report.rounds([refused]) == [{"step": 5, "scored": None, "trials": [], "outcomes": [refused]}]


def test_a_number_that_is_not_finite_is_shown_as_missing(tmp_path: Path) -> None:
    broken = _judged(900, "l1 mlp", math.nan, math.inf, False)
    page = report.write_report(_write(tmp_path, _run(), [], [broken]))
    assert _data(page)["rounds"][0]["trials"][0]["gain"] is None


def test_a_novelty_gain_that_was_not_measured_is_shown_as_missing(tmp_path: Path) -> None:
    window = _sensed(100)
    first, *others = window.signals
    unmeasured = msgspec.structs.replace(first, novelty_gain=-8192.0)
    window = msgspec.structs.replace(window, signals=(unmeasured, *others))
    page = report.write_report(_write(tmp_path, _run(), [], [window]))
    gains = [signal["novelty_gain"] for signal in _data(page)["sensed"][0]["signals"]]
    assert gains == [None, *(signal.novelty_gain for signal in others)]


def test_a_run_that_could_not_grow_says_why(tmp_path: Path) -> None:
    run = _run() | {"growth_off": "20 examples are too few"}
    page = report.write_report(_write(tmp_path, run, [], [])).read_text()
    assert "Growth was off: 20 examples are too few." in page


def test_steps_without_a_finite_loss_are_counted_but_the_measurement_before_the_first_step_is_not(
    tmp_path: Path,
) -> None:
    metrics = _metrics(steps=20)
    metrics[7]["loss"] = metrics[8]["loss"] = None
    data = _data(report.write_report(_write(tmp_path, _run(), metrics, [])))
    assert data["num_not_finite"] == 2
    assert len(data["curves"]["loss"][0]) == 18


def test_the_size_changes_at_the_step_of_the_graft_not_at_the_next_measurement(tmp_path: Path) -> None:
    grown = _attached(13, "l1 mlp", "l1.grafts.0", total_params=15)
    metrics = [{"step": 0, "loss": None, "params": 10}, {"step": 20, "loss": 1.0, "params": 15}]
    data = _data(report.write_report(_write(tmp_path, _run(), metrics, [grown])))
    assert data["curves"]["params"] == [[0, 13, 20], [10, 15, 15]]


def test_a_long_run_is_thinned_and_keeps_its_extremes(tmp_path: Path) -> None:
    metrics = [
        {"step": step, "loss": 1.0 + (step == 31_337) - 0.5 * (step == 12_345)} for step in range(1, 40_001)
    ]
    windows: list[events.AnyEvent] = [_sensed(step) for step in range(1, 500)]
    data = _data(report.write_report(_write(tmp_path, _run(), metrics, windows)))
    steps, losses = data["curves"]["loss"]
    assert len(steps) <= report.MAX_POINTS
    assert (losses[steps.index(31_337)], losses[steps.index(12_345)]) == (2.0, 0.5)
    assert (steps[0], steps[-1]) == (1, 40_000)
    assert len(data["sensed"]) == report.MAX_WINDOWS
    assert (data["sensed"][0]["step"], data["sensed"][-1]["step"]) == (1, 499)


@settings(max_examples=60)
@given(
    values=st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=300),
    limit=st.integers(4, 60),
)
def test_a_thinned_curve_is_a_part_of_the_curve_with_its_ends_and_extremes(
    values: list[float], limit: int
) -> None:
    steps, given_values = np.arange(len(values), dtype=float), np.array(values)
    x, y = report.thin(steps, given_values, limit)
    assert len(x) <= max(limit, 4)
    assert (np.diff(x) > 0).all()
    assert (given_values[x.astype(int)] == y).all()
    assert (x[0], x[-1]) == (0, len(values) - 1)
    assert (y.min(), y.max()) == (min(values), max(values))


@settings(max_examples=40)
@given(slope=st.floats(-5, 5), count=st.integers(1, 700))
def test_smoothing_leaves_a_straight_line_where_it_is(slope: float, count: int) -> None:
    steps = np.arange(count, dtype=float)
    x, y = report.smooth(steps, slope * steps)
    np.testing.assert_allclose(y, slope * x, atol=1e-6)


def test_smoothing_averages_noise_and_forgets_a_spike() -> None:
    steps = np.arange(10_000.0)
    noise = np.where(steps % 2 == 0, 1.0, -1.0)
    noise[5_000] = 1e20
    x, y = report.smooth(steps, noise)
    assert len(x) == report.MAX_POINTS
    assert abs(y[(x > 6_000) & (x < 9_000)]).max() < 1e-2


# What it is


def test_the_page_refers_to_nothing_outside_itself(tmp_path: Path) -> None:
    text = report.write_report(synthetic_run(tmp_path)).read_text()
    assert set(re.findall(r"https?://[^\s\"'<]+", text)) == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"<link[^>]+stylesheet|@import|\ssrc=|url\((?!#)", text)


def test_the_policy_of_the_page_allows_its_own_script_and_no_other(tmp_path: Path) -> None:
    text = report.write_report(synthetic_run(tmp_path)).read_text()
    digest = re.search(r"default-src 'none'; [^\"]*script-src 'sha256-([^']+)'\"", text)
    script = re.search(r"<script>(.*?)</script>", text, re.DOTALL)
    assert digest
    assert script
    assert base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode() == digest[1]


def test_the_scripts_never_parse_text_as_html() -> None:
    scripts = "".join((files("esper.training") / "page" / name).read_text() for name in report.SCRIPTS)
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function|</script", scripts
    )


def _evil_run(folder: Path) -> Path:
    network = [*_network(grown=False), {"name": EVIL, "type": EVIL, "shape_out": [4], "params": 4}]
    result = _run()["result"] | {"baselines": {EVIL: 0.5}, "metric": EVIL}
    run = _run() | {
        "task": EVIL,
        "id": EVIL,
        "network_before": network,
        "result": result,
        "metric": EVIL,
        "versions": {EVIL: EVIL},
    }
    facts = [*_events(), events.Refused(step=3_700, candidate=f"{EVIL} {EVIL}", reason=EVIL)]
    return _write(folder, run, _metrics(), facts)


def test_names_of_the_user_stay_text(tmp_path: Path) -> None:
    page = report.write_report(_evil_run(tmp_path))
    text = page.read_text()
    assert text.count("<script") == text.count("</script>") == 2
    assert "<img" not in text
    assert "<!-- " not in text.lower()
    assert f"<title>{html.escape(EVIL)} · Esper report</title>" in text
    assert _data(page)["run"]["task"] == EVIL


def test_settings_versions_seed_and_data_hash_are_carried(tmp_path: Path) -> None:
    run = _data(report.write_report(synthetic_run(tmp_path)))["run"]
    assert (run["seed"], run["data_hash"]) == (3, "sha256:9b1f0cc2e4a7d1")
    assert run["settings"]["source"] == "mnist1d"
    assert run["versions"]["torch"] == "2.13.0"


# Bad input


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"cannot read run\.json"):
        report.write_report(tmp_path)


def test_a_last_line_that_was_cut_off_is_left_out(tmp_path: Path) -> None:
    folder = synthetic_run(tmp_path)
    for name in ("metrics.jsonl", "events.jsonl"):
        with (folder / name).open("a") as file:
            file.write('{"step": 6001, "lo')
    assert _data(report.write_report(folder))["curves"]["loss"][0][-1] == 6_000


@pytest.mark.parametrize("line", ["{", '{"type": "Ended", "step": 1}', '{"type": "Unheard", "step": 1}'])
def test_a_damaged_journal_is_named(tmp_path: Path, line: str) -> None:
    folder = synthetic_run(tmp_path)
    (folder / "events.jsonl").write_text(f"{line}\n{line}\n")
    with pytest.raises(RunError, match=r"events\.jsonl"):
        report.write_report(folder)


def test_a_page_that_cannot_be_written_leaves_the_one_before(tmp_path: Path) -> None:
    page = report.write_report(synthetic_run(tmp_path))
    before = page.read_bytes()
    (tmp_path / "report.html.part").mkdir()
    with pytest.raises(RunError, match=r"cannot write .*report\.html"):
        report.write_report(tmp_path)
    assert page.read_bytes() == before


# In a browser


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.skip("no chromium installed: apt-get install chromium")
    driver = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed: pip install playwright"
    )
    quiet = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
             "--disable-component-update", "--disable-sync"]  # fmt: skip
    with driver.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=path, args=quiet)
        yield browser
        browser.close()


@contextmanager
def _opened(chromium: Any, path: Path, **options: Any) -> Iterator[Any]:
    """A page that must neither complain nor ask for anything but itself."""
    context = chromium.new_context(**options)
    page = context.new_page()
    complaints: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(path.as_uri())
    yield page
    context.close()
    assert complaints == []
    assert [url for url in asked if not url.startswith("data:")] == [path.as_uri()]


def test_a_browser_shows_curves_marks_drawing_and_decisions(chromium: Any, tmp_path: Path) -> None:
    with _opened(chromium, report.write_report(synthetic_run(tmp_path))) as page:
        assert page.locator("#curves path.line").count() == 5
        assert page.locator("#curves a.mark").count() == 6
        below = (
            "link => link.querySelector('.stem').getBBox().y - link.querySelector('circle').cy.baseVal.value"
        )
        assert page.locator("#curves a.mark.attached").evaluate(below) == 9
        assert page.locator("#network rect.layer").count() == 10
        assert page.locator("#network g.graft .graft-name").text_content() == "conv1d"
        assert page.locator("#network rect.layer.cut").count() == 1
        assert page.locator("details.round").count() == 3
        assert page.locator("details.round .interval .point").count() == 4
        assert page.locator("#round-1 .scores li.chosen").count() == 2
        assert page.locator(".glance tbody tr").count() == 5
        assert page.locator(".heat tbody tr").count() == 3
        assert page.locator(".compare li").first.text_content().startswith("grown network")
        assert page.locator("text=/undefined|NaN|\\[object/").count() == 0


def test_a_browser_shows_a_gain_that_was_looked_at_again_as_neither_kept_nor_refused(
    chromium: Any, tmp_path: Path
) -> None:
    doubted = msgspec.structs.replace(
        _judged(900, "l1 conv1d(channels=25)", 0.241, 0.0305, False), unsettled=True
    )
    settled = _judged(1_200, "l1 conv1d(channels=25)", 0.241, 0.0305, True)
    story = [
        _scored(600, 1.0, 1),
        doubted,
        settled,
        _attached(1_200, "l1 conv1d(channels=25)", "l1.grafts.0"),
    ]
    with _opened(chromium, report.write_report(_write(tmp_path, _run(), _metrics(), story))) as page:
        assert page.locator("#round-1 .chip", has_text="looked at again").count() == 1
        assert page.locator("#round-1 .chip", has_text="refused").count() == 0
        assert page.locator("#round-1 .chip", has_text="kept").count() == 1


def test_a_browser_lists_decisions_by_step_and_refuses_what_was_not_looked_at_again(
    chromium: Any, tmp_path: Path
) -> None:
    doubted = msgspec.structs.replace(_judged(900, "l2 mlp(ratio=2.0)", 0.241, 0.03, False), unsettled=True)
    early = events.Refused(step=700, candidate="l3 mlp(ratio=2.0)", reason="its parameters are too many")
    story = [
        _scored(600, 1.0, 1),
        early,
        *_refused(doubted),
        *_refused(_judged(1_200, "l1 mlp", 0.1, 0.1, False)),
    ]
    with _opened(chromium, report.write_report(_write(tmp_path, _run(), _metrics(), story))) as page:
        assert page.locator(".glance tbody td:first-child").all_text_contents() == ["700", "900", "1,200"]
        assert page.locator(".glance .chip", has_text="refused").count() == 3
        assert page.locator(".glance .chip", has_text="looked at again").count() == 0


def test_a_browser_shows_what_fed_a_cut_path_as_gone_and_a_scale_of_sizes(
    chromium: Any, tmp_path: Path
) -> None:
    before = _network(grown=False)[:3]
    after = [_graft_layer("l2.grafts.0.0", "Conv1d", [25], 3_976)]
    grown = _attached(40, "l1..l2 conv1d", "l2.grafts.0", total_params=4_017)
    cut = events.Cut(step=50, site="l2", params=41, total_params=3_976, total_macs=1)
    folder = _write(
        tmp_path,
        _run() | {"network_before": before, "network_after": after},
        _metrics(steps=99),
        [grown, cut],
    )
    with _opened(chromium, report.write_report(folder)) as page:
        assert page.locator("#network .tower").last.locator("rect.layer.cut").count() == 2
        assert page.locator("#network .layer-note.cut").all_text_contents() == [
            "no longer needed",
            "own path cut",
        ]
        assert page.locator("#curves .panel").last.locator("text.tick").all_text_contents() == [
            "0",
            "2,000",
            "4,000",
        ]


def test_a_browser_explains_marks_steps_and_terms_to_pointer_and_keyboard(
    chromium: Any, tmp_path: Path
) -> None:
    with _opened(chromium, report.write_report(synthetic_run(tmp_path))) as page:
        tip = page.locator("#tip")
        page.locator("#curves a.mark.attached").focus()
        assert "Grafted conv1d(channels=25) at l1: 8,014 parameters more" in tip.text_content()
        page.keyboard.press("Escape")
        assert tip.is_hidden()
        page.locator("#curves .area").focus()
        page.keyboard.press("PageUp")
        assert tip.text_content().startswith("Step 600")
        assert "step 600: Loss, smoothed" in page.locator("#curves .area").get_attribute("aria-valuetext")
        page.locator("#decisions .about a[href='#term-judge']").hover()
        assert "paired test" in tip.text_content()


@pytest.mark.parametrize("width", [320, 390, 768, 1_280])
def test_no_width_of_screen_cuts_off_text_or_scrolls_sideways(
    chromium: Any, tmp_path: Path, width: int
) -> None:
    outside = """() => [...document.querySelectorAll("svg text")].filter((text) => {
        const box = text.getBoundingClientRect(), frame = text.ownerSVGElement.getBoundingClientRect();
        const aside = box.left < frame.left - 1 || box.right > frame.right + 1;
        return box.width && (aside || box.bottom > frame.bottom + 1 || box.top < frame.top - 3);
    }).map((text) => text.textContent)"""
    viewport = {"width": width, "height": 800}
    with _opened(chromium, report.write_report(synthetic_run(tmp_path)), viewport=viewport) as page:
        assert page.evaluate("document.documentElement.scrollWidth") == width
        assert page.evaluate(outside) == []


def test_dark_mode_follows_the_system_and_the_button(chromium: Any, tmp_path: Path) -> None:
    colour = "getComputedStyle(document.body).backgroundColor"
    with _opened(chromium, report.write_report(synthetic_run(tmp_path)), color_scheme="dark") as page:
        assert page.evaluate(colour) == "rgb(20, 23, 26)"
        page.locator("#theme").click()
        assert page.evaluate(colour) == "rgb(250, 249, 246)"


def test_an_injection_in_a_name_stays_inert_in_a_browser(chromium: Any, tmp_path: Path) -> None:
    with _opened(chromium, report.write_report(_evil_run(tmp_path))) as page:
        assert page.evaluate("window.hacked") is None
        assert page.locator("img").count() == 0
        assert page.locator(".facts span").first.text_content() == EVIL


def test_a_browser_shows_the_page_of_a_run_that_has_only_begun(chromium: Any, tmp_path: Path) -> None:
    run = _run() | {"status": "running", "result": None, "network_before": None, "network_after": None}
    with _opened(chromium, report.write_report(_write(tmp_path, run, [], []))) as page:
        assert "No step has been measured yet." in page.locator("#curves").text_content()
        assert "not been written down yet" in page.locator("#network").text_content()


def test_a_deep_network_is_drawn_in_short_and_shows_every_graft(chromium: Any, tmp_path: Path) -> None:
    trunk = [
        {"name": f"layers.{n}", "type": "Linear", "shape_out": [32], "params": 1_056} for n in range(200)
    ]
    places = {"layers.40": "layers.40", "layers.90..layers.92": "layers.92", "layers.150+": "layers.150"}
    grown = [
        _attached(100 * n, f"{site} mlp(ratio=1.0)", f"{exit_name}.grafts.0")
        for n, (site, exit_name) in enumerate(places.items(), 1)
    ]
    run = _run() | {
        "network_before": trunk,
        "network_after": [*trunk, *(_graft_layer(f"{fact.path}.out", "Linear", [32], 9) for fact in grown)],
    }
    with _opened(chromium, report.write_report(_write(tmp_path, run, [], grown))) as page:
        assert page.locator("#network g.graft").count() == 3
        assert page.locator("#network rect.folded").count() == 2 * 4
        assert page.locator("#network rect.layer").count() < 60
