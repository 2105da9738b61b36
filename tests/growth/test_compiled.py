"""Models under torch.compile grow as they do without it, and are compiled again once for every change."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo import eval_frame
from torch._dynamo.callback import callback_handler
from torch._dynamo.utils import counters
from torch._inductor import config as inductor

from esper import Budget, Grower
from esper.events import Attached, Cut, Recompiled, RolledBack
from growth.loops import MLP, Lenient, Script, Stern, adamw, evaluation, kinds
from hosts import Host, host

ONE = Budget(params_ratio=100.0, grafts=1)
WAYS = ("wrapped", "twin", "in_place")


class Doubled(nn.Module):
    """A forward of its own around what is compiled."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        return 2 * self.body(x)


def hosted(kind: str = "mlp") -> Host:
    plain = host(kind)
    return replace(plain, build=lambda: Doubled(plain.build()))


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """No compiled code and no stance is left from, or to, another test."""
    torch._dynamo.reset()
    counters.clear()
    yield
    if eval_frame._stance.stance != "default":
        gc.collect()  # a Grower in the middle of a round holds torch in eager mode
    assert eval_frame._stance.stance == "default"
    torch._dynamo.reset()


def counted(graphs: list[torch.fx.GraphModule], graph: torch.fx.GraphModule, _: Any) -> Callable[..., Any]:
    """A backend that keeps what it is given to compile, and runs it as it is."""
    graphs.append(graph)
    return graph.forward


class Run:
    """A loop around a model that is compiled in one of the `WAYS`, or is not."""

    def __init__(self, way: str, kind: Host, **options: Any) -> None:
        self.graphs: list[torch.fx.GraphModule] = []
        self.losses: list[float] = []
        self.fresh: list[int] = []
        self.kind = kind
        torch.manual_seed(0)
        self.plain = kind.make(0)
        self.model = self._compiled(way, options.pop("backend", partial(counted, self.graphs)))
        self.optimizer = adamw(self.plain)
        self.closure = "loss" not in options
        self.grower = Grower(
            self.model if way == "wrapped" else self.plain,
            self.optimizer,
            **{
                "evaluate": evaluation(kind),
                "controller": Script(),
                "judge": Lenient(),
                "recipes": [MLP],
                "budget": ONE,
                **options,
            },
        )

    def _compiled(self, way: str, backend: Any) -> nn.Module:
        if way in ("wrapped", "twin"):
            return torch.compile(self.plain, backend=backend)
        if way == "in_place":
            self.plain.compile(backend=backend)
        return self.plain

    def steps(self, count: int) -> Run:
        for step in range(len(self.losses), len(self.losses) + count):
            batch, before = self.kind.batch(step % 6), len(self.graphs)
            self.optimizer.zero_grad()
            loss = self.kind.loss(self.model, batch)
            loss.backward()
            self.optimizer.step()
            self.losses.append(float(loss.detach()))
            if len(self.graphs) > before:
                self.fresh.append(step + 1)
            self.grower.step(*([lambda b=batch: self.kind.loss(self.model, b)] if self.closure else []))
        return self


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", ["mlp", "resnet"])
def test_a_graft_acts_in_compiled_code_after_one_compilation(way: str, kind: str) -> None:
    eager, run = Run("eager", hosted(kind)).steps(30), Run(way, hosted(kind)).steps(30)
    (attached,) = [event.step for event in run.grower.history if isinstance(event, Attached)]
    assert run.fresh == [1, attached + 1]
    assert run.losses == eager.losses
    assert not counters["graph_break"]


def signals(run: Run) -> list[Any]:
    """Signals and scores without the names of sites, which a wrapper makes longer."""
    sensed, scored = run.grower.history
    return [
        [getattr(item, field) for field in item.__struct_fields__ if field not in ("site", "candidate")]
        for item in (*sensed.signals, *scored.scores)
    ]


@pytest.mark.parametrize("way", WAYS)
def test_a_compiled_model_yields_the_signals_of_an_eager_one(way: str) -> None:
    eager, run = Run("eager", hosted(), judge=Stern()).steps(12), Run(way, hosted(), judge=Stern()).steps(12)
    assert kinds(run.grower) == ["Sensed", "Scored"]
    assert signals(run) == signals(eager)
    assert run.fresh == [1]


@pytest.mark.parametrize("way", WAYS)
def test_a_cut_and_the_folded_model_act_in_compiled_code(way: str) -> None:
    def trained(how: str) -> Run:
        run = Run(how, hosted(), judge=Lenient(cuts=True)).steps(34)
        run.grower.finish()
        run.losses += [float(run.kind.loss(run.model, run.kind.batch(9)).detach())]
        return run

    eager, run = trained("eager"), trained(way)
    assert any(isinstance(event, Cut) for event in run.grower.history)
    assert run.losses == pytest.approx(eager.losses, abs=1e-6)


@pytest.mark.parametrize("way", WAYS)
def test_a_graft_that_is_taken_out_again_leaves_compiled_code(way: str) -> None:
    def trained(how: str) -> Run:
        run = Run(how, hosted())
        run.grower.on_event(lambda event: spoil(run) if isinstance(event, Attached) else None)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="growth undone")
            return run.steps(50)

    def spoil(run: Run) -> None:
        with torch.no_grad():
            run.plain.get_parameter("body.0.weight").mul_(1e6)

    eager, run = trained("eager"), trained(way)
    assert any(isinstance(event, RolledBack) for event in run.grower.history)
    assert run.losses == eager.losses


class Squares(Host):
    """Trains outputs to be small, so that the output is all that the loss needs."""

    def loss(self, model: nn.Module, batch: Any, *, reduction: str = "mean") -> Tensor:
        losses = self.forward(model, batch[0]).square().mean(1)
        return losses.mean() if reduction == "mean" else losses


@pytest.mark.parametrize("way", WAYS)
def test_the_latest_call_of_a_compiled_model_is_repeated(way: str) -> None:
    kind = Squares(**vars(hosted()))
    eager = Run("eager", kind).steps(30)
    run = Run(way, kind, loss=lambda output: output.square().mean(1).mean()).steps(30)
    assert "Judged" in kinds(run.grower)
    assert run.losses == eager.losses


def test_how_long_a_change_made_torch_compile_is_told_at_the_next_step() -> None:
    run = Run("wrapped", hosted()).steps(30)
    (attached,) = [event.step for event in run.grower.history if isinstance(event, Attached)]
    (told,) = [event for event in run.grower.history if isinstance(event, Recompiled)]
    assert (told.step, told.num_graphs) == (attached + 1, 1)
    assert told.seconds > 0
    assert not callback_handler.start_callbacks
    assert not callback_handler.end_callbacks


def test_nothing_is_told_where_nothing_is_compiled() -> None:
    run = Run("eager", hosted()).steps(30)
    assert "Attached" in kinds(run.grower)
    assert "Recompiled" not in kinds(run.grower)


def test_aot_autograd_sees_the_graft() -> None:
    eager, run = Run("eager", hosted()).steps(20), Run("wrapped", hosted(), backend="aot_eager").steps(20)
    assert "Attached" in kinds(run.grower)
    assert run.losses == pytest.approx(eager.losses, rel=1e-3)
    plain = Run("eager", hosted(), judge=Stern()).steps(20)
    assert plain.losses[-1] != pytest.approx(eager.losses[-1], rel=1e-2)


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
def test_inductor_sees_the_graft_and_finds_it_in_its_cache_the_next_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    # It would compile a program for every instruction set of this processor to see whether the compiler knows it.
    monkeypatch.setattr(inductor.cpp, "vec_isa_ok", True)
    eager = Run("eager", hosted()).steps(20)
    found = []
    for _ in range(2):
        torch._dynamo.reset()
        counters.clear()
        run = Run("wrapped", hosted(), backend="inductor").steps(20)
        assert run.losses == pytest.approx(eager.losses, rel=1e-3)
        assert "Recompiled" in kinds(run.grower)
        found.append(
            counters["inductor"]["fxgraph_cache_hit"] + counters["aot_autograd"]["autograd_cache_hit"]
        )
    assert found[0] == 0
    assert found[1] >= 2
