from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from esper.surgery.isolation import isolated
from esper.surgery.multiply_adds import MultiplyAdds
from esper.surgery.spans import spans_among
from esper.surgery.trace import Call, Trace, trace
from hosts import HOSTS, Host, host


def traced(kind: Host, *, model: nn.Module | None = None) -> Trace:
    model = kind.make(0) if model is None else model
    with isolated(model):
        return trace(model, lambda: kind.loss(model, kind.batch(0)))


def only(found: Trace, module: str) -> Call:
    (call,) = found.by_module[module]
    return call


def hooks(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


@pytest.mark.parametrize("kind", HOSTS, ids=lambda kind: kind.name)
def test_tracing_leaves_no_hook_and_no_gradient_behind(kind: Host) -> None:
    model = kind.make(0)
    found = traced(kind, model=model)
    assert hooks(model) == 0
    assert all(parameter.grad is None for parameter in model.parameters())
    assert found.has_graph
    assert found.batch_size == 8
    assert found.calls[0].module == ""
    assert [call.order for call in found.calls] == list(range(len(found.calls)))


def test_hooks_are_removed_when_the_run_fails() -> None:
    model = nn.Linear(2, 2)

    def run() -> None:
        raise KeyError

    with pytest.raises(KeyError):
        trace(model, run)
    assert hooks(model) == 0


def test_a_long_evaluation_costs_one_batch() -> None:
    model, batches = nn.Linear(2, 2), []

    def run() -> None:
        for size in range(3, 100):
            batches.append(size)
            try:
                model(torch.ones(size, 2))
            except Exception:  # noqa: BLE001 - what a careless evaluation does
                batches.append(-1)

    found = trace(model, run)
    assert batches == [3]
    assert found.batch_size == 3
    assert len(found.calls) == 1


def test_calls_before_the_model_itself_do_not_count() -> None:
    model = nn.Sequential(nn.Linear(2, 2))
    found = trace(model, lambda: model(model[0](torch.ones(3, 2))))
    assert [call.module for call in found.calls] == ["", "0"]
    assert found.macs == 4


def test_a_model_of_which_only_parts_are_called_is_watched_to_the_end() -> None:
    model = nn.ModuleDict({"a": nn.Linear(2, 3), "b": nn.Linear(3, 4)})
    found = trace(model, lambda: model["b"](model["a"](torch.ones(5, 2))))
    assert [call.module for call in found.calls] == ["a", "b"]
    assert only(found, "b").depends_on(only(found, "a"))
    assert only(found, "b").used
    assert (found.batch_size, found.macs) == (5, 18)


def test_a_run_that_calls_nothing_gives_an_empty_trace() -> None:
    found = trace(nn.Linear(2, 2), lambda: None)
    assert found.calls == ()
    assert found.macs == 0


def test_arguments_and_outputs_are_found_by_position_keyword_and_key() -> None:
    found = traced(host("branches"))
    assert only(found, "").source.where == "wide"
    assert only(found, "").target.where == "scores"
    assert only(found, "left").source.where == "input"
    assert only(found, "join").source.where == 0
    assert only(found, "join").target.where is None
    assert only(traced(host("tuple_output")), "first").target.where == 0


def test_shapes_and_types_are_those_of_the_batch() -> None:
    found = traced(host("autocast"))
    assert only(found, "0").source.shape == (8, 6)
    assert only(found, "0").source.dtype == torch.float32
    assert not only(found, "0").source.requires_grad
    assert only(found, "0").target.shape == (8, 16)
    assert only(found, "0").target.dtype == torch.bfloat16
    assert only(found, "0").target.requires_grad


def test_integers_are_no_source() -> None:
    assert only(traced(host("lstm")), "embed").source is None


def test_branches_depend_on_what_feeds_them_and_on_nothing_else() -> None:
    found = traced(host("branches"))
    left, right, join = (only(found, name) for name in ("left", "right.2", "join"))
    head, auxiliary = only(found, "head"), only(found, "auxiliary")
    assert join.depends_on(left)
    assert join.depends_on(right)
    assert not right.depends_on(left)
    assert not join.depends_on(head)
    assert not auxiliary.depends_on(head)
    assert auxiliary.depends_on(left)
    assert not join.depends_on(join)
    assert only(found, "").depends_on(head)
    assert not head.depends_on(only(found, ""))


def test_a_module_called_three_times_has_three_calls_in_a_chain() -> None:
    first, second, third = traced(host("shared")).by_module["again"]
    assert second.depends_on(first)
    assert third.depends_on(first)
    assert not first.depends_on(second)


def test_operations_in_place_hide_nothing() -> None:
    found = traced(host("in_place"))
    first, second, head = (only(found, name) for name in ("first", "second", "head"))
    assert second.depends_on(first)
    assert head.depends_on(second)
    assert all(call.used for call in found.calls)


def test_a_view_that_is_written_to_still_counts() -> None:
    class Turned(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).transpose(0, 1)

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.turned, self.head = Turned(2, 3), nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.turned(x).relu_().transpose(0, 1))

    model = Model()
    found = trace(model, lambda: model(torch.randn(4, 2)))
    assert only(found, "head").depends_on(only(found, "turned"))
    assert only(found, "turned").used


def test_an_input_that_is_handed_on_is_not_an_output() -> None:
    class Passing(nn.Linear):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return super().forward(x), x

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.passing, self.head = nn.Linear(2, 2), Passing(2, 2), nn.Linear(2, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.passing(self.first(x))[1])

    model = Model()
    found = trace(model, lambda: model(torch.ones(3, 2)))
    assert only(found, "head").depends_on(only(found, "first"))
    assert not only(found, "head").depends_on(only(found, "passing"))


def test_an_output_that_nobody_uses_is_told_from_its_used_sibling() -> None:
    found = traced(host("gru_time_first"))
    assert not only(found, "gru").used
    assert only(found, "head").depends_on(only(found, "gru"))
    assert only(traced(host("lstm")), "lstm").used


def test_weights_read_without_a_call_are_told_from_unused_ones() -> None:
    found = traced(host("language_model"))
    assert "blocks.0.attention.out_proj" not in found.by_module
    assert "blocks.0.attention.out_proj.weight" in found.read
    found = traced(host("branches"))
    assert "unused" not in found.by_module
    assert not {"unused.weight", "unused.bias"} & found.read


def test_without_gradients_the_order_of_calls_stands_in() -> None:
    kind = host("branches")
    model = kind.make(0)

    @torch.no_grad()
    def run() -> None:
        kind.loss(model, kind.batch(0))

    found = trace(model, run)
    assert not found.has_graph
    assert only(found, "right.0").depends_on(only(found, "left"))
    assert not only(found, "left").depends_on(only(found, "right.0"))
    assert only(found, "left").used


def test_gradients_are_on_unless_the_run_turns_them_off() -> None:
    model = nn.Linear(2, 2)
    with torch.no_grad():
        assert trace(model, lambda: model(torch.ones(3, 2))).has_graph


def test_outputs_in_dataclasses_are_seen() -> None:
    @dataclass
    class Output:
        scores: Tensor

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.kept, self.dropped = nn.Linear(2, 2), nn.Linear(2, 2)

        def forward(self, x: Tensor) -> Output:
            self.dropped(x)
            return Output(self.kept(x))

    model = Model()
    found = trace(model, lambda: model(torch.ones(3, 2)))
    assert only(found, "kept").used
    assert not only(found, "dropped").used


def test_a_call_that_failed_and_was_caught_is_left_out() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.broken = nn.Sequential(nn.Linear(9, 9))
            self.sound = nn.Linear(2, 2)

        def forward(self, x: Tensor) -> Tensor:
            try:
                return self.broken(x)
            except RuntimeError:
                return self.sound(x)

    model = Model()
    found = trace(model, lambda: model(torch.ones(3, 2)))
    assert [call.module for call in found.calls] == ["", "sound"]


def _lstm_macs() -> int:
    first, second = 4 * 10 * (6 + 10), 4 * 10 * (10 + 10)
    return 7 * (first + second) + 10 * 3


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mlp", 6 * 16 + 16 * 16 + 16 * 3),
        ("batchnorm_cnn", 6 * 9 * 36 + 8 * 6 * 9 * 16 + 32 * 3),
        ("lstm", _lstm_macs()),
        ("gru_time_first", 5 * (4 * 6 + 3 * 8 * (6 + 8)) + 8 * 3),
        ("graph", 5 * 4 * 10 + 25 * 10 + 5 * 10 * 10 + 25 * 10 + 10 * 3),
        ("shared", 6 * 12 + 3 * 12 * 12 + 12 * 3),
    ],
)
def test_multiply_adds_are_exact_per_example(name: str, expected: int) -> None:
    assert traced(host(name)).macs == expected


@pytest.mark.parametrize("name", ["mlp", "conv1d", "language_model"])
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_multiply_adds_are_the_same_without_gradients(name: str, mode: Callable[[], object]) -> None:
    kind = host(name)
    model = kind.make(0)

    @mode()
    def run() -> None:
        kind.loss(model, kind.batch(0))

    assert trace(model, run).macs == traced(kind).macs


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_bilinear_layers_and_bags_of_embeddings_are_counted(
    mode: Callable[[], AbstractContextManager[object]],
) -> None:
    bilinear, bag = nn.Bilinear(6, 5, 4), nn.EmbeddingBag(10, 3, mode="sum")
    words, x = torch.tensor([[1, 2, 4], [4, 5, 6]]), torch.ones(2, 7, 6)

    with mode(), MultiplyAdds() as counted:
        bilinear(x, x[..., :5])
        bag(words)
    assert counted.total == 2 * 7 * 4 * (6 * 5 + 5) + 6 * 3


def test_attention_is_counted_whichever_kernel_works_it_out() -> None:
    layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
    products = 10 * (16 * 48 + 16 * 16 + 2 * 16 * 32) + 2 * 10 * 10 * 16
    assert trace(layer, lambda: layer(torch.randn(3, 10, 16))).macs == products


class Net(nn.Module):
    """Nodes that each read the sum of some earlier ones; node ``i`` may rectify in place what it reads."""

    def __init__(self, reads: list[list[int]], in_place: list[bool]) -> None:
        super().__init__()
        self.reads, self.in_place = reads, in_place
        self.nodes = nn.ModuleList(nn.Linear(2, 2) for _ in reads)

    def forward(self, x: Tensor) -> Tensor:
        outputs: list[Tensor] = []
        for node, reads, in_place in zip(self.nodes, self.reads, self.in_place, strict=True):
            total = torch.stack([outputs[i] for i in reads]).sum(0) if reads else x
            outputs.append(node(F.relu(total)))
            if in_place:
                outputs[-1].mul_(2.0)
        return torch.stack(outputs).sum(0)


@st.composite
def nets(draw: Callable[..., object]) -> Net:
    size = draw(st.integers(1, 7))
    reads = [sorted(draw(st.sets(st.integers(0, i - 1), max_size=3))) if i else [] for i in range(size)]
    return Net(reads, draw(st.lists(st.booleans(), min_size=size, max_size=size)))


def _closure(reads: list[list[int]]) -> list[set[int]]:
    behind: list[set[int]] = []
    for own in reads:
        behind.append(set(own).union(*(behind[i] for i in own)))
    return behind


@given(net=nets())
@settings(max_examples=60)
def test_dependence_is_the_closure_of_what_each_node_reads(net: Net) -> None:
    found = trace(net, lambda: net(torch.randn(3, 2)))
    calls = [only(found, f"nodes.{i}") for i in range(len(net.reads))]
    seen = [{i for i, other in enumerate(calls) if call.depends_on(other)} for call in calls]
    assert seen == _closure(net.reads)


@given(net=nets())
@settings(max_examples=60)
def test_spans_reach_one_and_two_steps_along_the_longest_way(net: Net) -> None:
    found = trace(net, lambda: net(torch.randn(3, 2)))
    calls = [only(found, f"nodes.{i}") for i in range(len(net.reads))]
    behind = _closure(net.reads)
    next_to = [{i for i in own if not any(i in behind[j] for j in own)} for own in behind]
    one = {(i, j) for j, near in enumerate(next_to) for i in near}
    two = one | {(h, j) for j, near in enumerate(next_to) for i in near for h in next_to[i]}
    for reach, expected in ((1, one), (2, two)):
        pairs = [(calls.index(a), calls.index(b)) for a, b in spans_among(calls, reach=reach)]
        assert set(pairs) == expected
        assert len(pairs) == len(expected)
