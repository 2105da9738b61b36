"""The benchmark scripts run, and what they count and store is right. Their figures are not judged here."""

from __future__ import annotations

import importlib
import json
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import fx, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.arms import Plan, Row, batches, static_arm, step_flops, train
from benchmarks.data import FASHION, Rows, Teacher, noise, planted, spirals
from benchmarks.meter import Meter, PeakMemory, flops_of
from benchmarks.networks import cnn1d, image_cnn, mlp, num_params, reinitialised, scaled_mlp
from benchmarks.paired import paired
from benchmarks.planted import Place
from benchmarks.summary import best_of, by_arm
from benchmarks.table import Published, Table, store

SCRIPTS = (
    "mnist1d",
    "planted",
    "false_growth",
    "spirals",
    "fashion",
    "cost",
    "size",
    "widen",
    "prune",
    "distributed",
)
SHORTER = {"cost": {"WARM_UP": 5, "DORMANT_STEPS": 40, "MEMORY_STEPS": 40}}


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_quick_run_prints_its_table_and_stores_nothing(
    script: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    if script == "fashion" and not FASHION.exists():
        pytest.skip("dataset-fashion-mnist is not installed")
    stored = sorted((path, path.read_bytes()) for path in Path("benchmarks").rglob("*.[jm][sd]*"))
    monkeypatch.setattr(sys, "argv", [script, "--quick", "--data", str(tmp_path)])
    module = importlib.import_module(f"benchmarks.{script}")
    for name, steps in SHORTER.get(script, {}).items():
        monkeypatch.setattr(module, name, steps)
    module.main()
    assert "|" in capsys.readouterr().out
    assert stored == sorted((path, path.read_bytes()) for path in Path("benchmarks").rglob("*.[jm][sd]*"))


@pytest.mark.parametrize(
    ("model", "x"),
    [
        (mlp((40, 32, 32, 10)), torch.randn(100, 40)),
        (cnn1d(25), torch.randn(100, 40)),
        (image_cnn(4), torch.randn(8, 1, 28, 28)),
        (nn.Sequential(nn.ConvTranspose1d(3, 4, 3, stride=2), nn.Conv1d(4, 2, 3)), torch.randn(5, 3, 9)),
    ],
)
def test_the_meter_agrees_with_torch_on_ordinary_networks(model: nn.Module, x: torch.Tensor) -> None:
    with FlopCounterMode(display=False) as counter:
        model(x).sum().backward()
    assert flops_of(lambda: model(x).sum().backward()) == counter.get_total_flops() > 0


def test_the_peak_is_of_what_lives_at_a_time_in_memory_and_no_look_at_a_shape() -> None:
    given = torch.ones(1_000)
    memory = PeakMemory([given])
    with memory:
        (given + 1.0).sum()
        kept = given * 2.0
        kept.view(10, 100).add_(1.0)
        torch.empty(10_000, device="meta")
    assert 4_000 <= memory.peak < 2 * 4_000
    assert memory.live == 4_000


def test_the_meter_charges_a_grouped_convolution_three_times_its_forward_pass() -> None:
    x = torch.randn(2, 8, 10, requires_grad=True)
    convolution = nn.Conv1d(8, 8, 3, groups=4)
    forward = 2 * 2 * 8 * 8 * 2 * 3
    assert flops_of(lambda: convolution(x).sum().backward()) == 3 * forward


def test_counting_a_step_leaves_the_model_and_the_random_stream_alone() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch.manual_seed(1)
    step_flops(
        model, Rows(torch.randn(6, 4, generator=torch.Generator().manual_seed(0)), torch.zeros(6, dtype=int))
    )
    drawn = torch.rand(1)
    torch.manual_seed(1)
    assert torch.equal(drawn, torch.rand(1))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_counting_changes_no_bit_of_an_operation_that_is_also_made_of_parts() -> None:
    def gradient() -> torch.Tensor:
        x = torch.linspace(-3.0, 3.0, 999).requires_grad_()
        (torch.nn.functional.silu(x) * torch.linspace(0.1, 1.0, 999)).sum().backward()
        assert x.grad is not None
        return x.grad

    alone = gradient()
    with Meter():
        counted = gradient()
    assert torch.equal(alone, counted)


def test_peak_memory_forgets_what_has_died() -> None:
    memory = PeakMemory()
    with memory:
        for _ in range(3):
            kept = torch.zeros(1_000)
            kept.view(10, 100)
    assert 4_000 <= memory.peak <= 8_000
    assert memory.live == kept.nbytes


def test_peak_memory_leaves_out_the_data_it_is_told_of_and_views_of_them() -> None:
    data, other = torch.zeros(5_000), torch.zeros(1_000)
    memory = PeakMemory(apart_from=[data])
    with memory:
        _ = [*data.split(100), other.view(10, 100)]
    assert memory.peak == other.nbytes


def test_all_arms_of_a_seed_see_the_same_batches_and_every_row_once_an_epoch() -> None:
    rows = Rows(torch.arange(20.0).reshape(20, 1), torch.zeros(20, dtype=torch.int64))
    plan = Plan(steps=4, batch=5)
    first, second = ([x for x, _ in batches(rows, plan, 3)] for _ in range(2))
    longer = [x for x, _ in batches(rows, replace(plan, steps=8), 3)]
    assert torch.equal(torch.cat(first), torch.cat(second))
    assert torch.equal(torch.cat(first), torch.cat(longer[:4]))
    assert sorted(torch.cat(first).flatten().tolist()) == list(range(20))
    assert not torch.equal(torch.cat(first), torch.cat([x for x, _ in batches(rows, plan, 4)]))


def test_the_schedule_is_constant_until_half_way_and_ends_near_zero() -> None:
    plan = Plan(steps=1_000)
    assert plan.factor(0) == plan.factor(500) == 1.0
    assert plan.factor(750) == pytest.approx(0.5)
    assert 0 < plan.factor(999) < 1e-4


def test_training_learns_and_repeats_itself() -> None:
    task = spirals(0)
    build = partial(mlp, (2, 32, 32, 2))
    first, second = (train(build, task.split, Plan(steps=300), 0) for _ in range(2))
    assert all(map(torch.equal, first.model.parameters(), second.model.parameters()))
    assert first.flops == second.flops == 300 * step_flops(build(), task.split.train.part(0, 100))
    row = static_arm("mlp", build, task, Plan(steps=300), 0)
    assert row.test_accuracy > 0.6
    assert row.held_out_accuracy is not None
    assert static_arm("all rows", build, task.unsplit, Plan(steps=1), 0).held_out_accuracy is None


def test_the_splits_share_no_row() -> None:
    task = planted(Teacher(seed=1), num_train=200, num_held_out=50, num_test=100)
    seen = torch.cat([task.split.train.x, task.split.held_out.x, task.test.x])
    assert len(torch.unique(seen, dim=0)) == 350
    random = noise(task, 0)
    assert torch.equal(random.split.train.x, task.split.train.x)
    assert not torch.equal(random.split.train.y, task.split.train.y)


def test_networks_have_the_sizes_that_the_tables_name() -> None:
    assert num_params(cnn1d(25)) == 5_210
    assert num_params(mlp((40, 32, 32, 10))) == 2_698
    scaled = scaled_mlp((4, 1, 1), 20, 10, 3_000)
    widths = [layer.out_features for layer in scaled if isinstance(layer, nn.Linear)]
    assert abs(num_params(scaled) - 3_000) < 150
    assert widths[0] / widths[1] == pytest.approx(4, abs=0.2)


def test_reinitialised_draws_every_weight_anew_and_refuses_what_it_cannot_draw() -> None:
    model = mlp((4, 8, 2))
    fresh = reinitialised(model)
    assert not any(map(torch.equal, model.parameters(), fresh.parameters()))
    model.register_parameter("scale", nn.Parameter(torch.ones(1)))
    with pytest.raises(ValueError, match="cannot be redrawn"):
        reinitialised(model)


def test_reinitialised_redraws_bare_weights_as_torch_draws_those_of_a_layer() -> None:
    layer = nn.Linear(5, 4)
    graph = fx.Graph()
    graph.output((graph.get_attr("weight"), graph.get_attr("bias")))
    folded = fx.GraphModule({"weight": layer.weight, "bias": layer.bias}, graph)
    torch.manual_seed(3)
    fresh = dict(reinitialised(folded).named_parameters())
    torch.manual_seed(3)
    drawn = nn.Linear(5, 4)
    assert torch.equal(fresh["weight"], drawn.weight)
    assert torch.equal(fresh["bias"], drawn.bias)


@pytest.mark.parametrize(
    ("candidate", "narrow", "opens", "touches"),
    [
        ("l1..l2 mlp(ratio=2.0)", 1, True, True),
        ("l1..l2 mlp(ratio=2.0)", 2, False, True),
        ("l1..l3 gated(ratio=1.0)", 2, True, True),
        ("l3 mlp(ratio=2.0)", 1, False, False),
        ("l2+ mlp(ratio=2.0)", 2, False, True),
        ("l1 mlp(ratio=2.0)", 0, False, True),
        ("l3..l4 mlp(ratio=2.0)", 0, True, True),
        ("l1..l2 mlp(ratio=2.0)", 3, False, False),
    ],
)
def test_a_place_opens_or_touches_the_narrow_layer(
    candidate: str, narrow: int, opens: bool, touches: bool
) -> None:
    place = Place.of(candidate)
    assert (place.opens(narrow), place.touches(narrow)) == (opens, touches)


def row(arm: str, seed: int, test: float, held_out: float) -> Row:
    return Row(
        arm=arm,
        seed=seed,
        test_accuracy=test,
        test_loss=1.0,
        held_out_accuracy=held_out,
        params=1,
        flops=10,
        seconds=1.0,
    )


def test_the_best_of_a_sweep_is_chosen_by_held_out_accuracy_and_pays_for_all() -> None:
    rows = [row("a", 0, 0.9, 0.5), row("b", 0, 0.8, 0.6), row("a", 1, 0.7, 0.7), row("b", 1, 0.6, 0.5)]
    best = best_of("best", rows)
    assert [(r.seed, r.test_accuracy, r.note, r.flops) for r in best] == [
        (0, 0.8, "b", 20),
        (1, 0.7, "a", 20),
    ]
    assert list(by_arm(rows)) == ["a", "b"]


def test_paired_differences_use_shared_seeds_only() -> None:
    difference = paired({0: 1.0, 1: 2.0, 2: 3.0, 9: 5.0}, {0: 0.0, 1: 1.5, 2: 1.5})
    assert difference.num == 3
    assert difference.mean == pytest.approx(1.0)
    assert difference.sd == pytest.approx(0.5)
    assert difference.p == pytest.approx(0.0742, abs=1e-4)


def test_a_table_is_stored_and_its_section_replaced(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("# Benchmarks\n\nBefore.\n")
    for cell in ("0.5", "0.75"):
        table = Table(name="t", title="Title", columns=["arm", "score"], cells=[["a", cell]])
        published = Published(table=table, command="python -m t", date="2026-01-01", machine="m")
        store(published, results=tmp_path / "results", readme=readme)
    text = readme.read_text()
    assert text.startswith("# Benchmarks\n\nBefore.\n")
    assert text.count("## Title") == 1
    assert "0.75" in text
    assert "0.5 " not in text
    assert json.loads((tmp_path / "results" / "t.json").read_text())["table"]["cells"] == [["a", "0.75"]]


def test_the_meter_sees_what_happens_inside_a_transform() -> None:
    weights, x = torch.randn(3, 5, 4), torch.randn(7, 4)
    meter = Meter()
    with meter:
        torch.func.vmap(lambda weight: F.linear(x, weight))(weights)
    assert meter.flops == 2 * 3 * 7 * 4 * 5
