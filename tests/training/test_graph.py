"""Networks as plain data and as code: what is described comes back equal; nothing foreign comes back at all."""

from __future__ import annotations

import operator
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from esper.errors import RunError
from esper.training.code import write_code
from esper.training.graph import Call, Description, describe, rebuild, weights_of


class Branching(nn.Module):
    """A residual path, a loose parameter, a buffer, slices, keyword arguments and a method."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([nn.Linear(6, 6), nn.Linear(6, 6, bias=False)])
        self.norm = nn.LayerNorm(6)
        self.scale = nn.Parameter(torch.full((6,), 0.5))
        self.register_buffer("shift", torch.ones(3))

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = x + F.gelu(block(x), approximate="tanh") * self.scale
        left, right = x[:, :3] + self.shift, x[..., 3:]
        return self.norm(torch.cat([left, right], dim=1)).clamp(min=-1.0).to(torch.float32)


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 4)
        self.reader = nn.GRU(4, 5, batch_first=True)
        self.attention = nn.MultiheadAttention(5, 1, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        states, _ = self.reader(self.embed(x))
        mixed, _ = self.attention(states, states, states, need_weights=False)
        return mixed.mean(dim=1)


def with_graph_child() -> nn.Module:
    inner = fx.symbolic_trace(nn.Sequential(nn.Linear(6, 3), nn.Tanh(), nn.Linear(3, 6)))
    return nn.Sequential(nn.Linear(6, 6), inner, nn.Dropout(0.5), nn.Linear(6, 2))


def conv() -> nn.Module:
    return nn.Sequential(
        nn.Unflatten(1, (1, 6)), nn.Conv1d(1, 3, 3, padding=1, padding_mode="circular"), nn.BatchNorm1d(3),
        nn.ReLU(), nn.AdaptiveAvgPool1d(2), nn.Flatten(), nn.Linear(6, 2),
    )  # fmt: skip


def tied() -> nn.Module:
    first = nn.Linear(6, 6)
    return nn.Sequential(first, nn.ReLU(), first)


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Bilinear(6, 6, 2)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        mixed: Tensor = self.mix(left, right)
        return mixed


def hooked() -> nn.Module:
    model = nn.Sequential(nn.LayerNorm(6), nn.Linear(6, 2))
    model[0].grafts = nn.ModuleList([nn.Linear(6, 6)])
    model[0].register_forward_hook(lambda module, inputs, output: output + module.grafts[0](inputs[0]))
    model[1].register_forward_hook(lambda _m, _i, _k, output: output * 2, with_kwargs=True)
    return model


def replaced() -> nn.Module:
    """The outermost forward is another one than that of its class, and a layer is a hollow holder."""
    model = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 2))
    model[0].part = nn.Linear(6, 2)
    model[0]._parameters.clear()
    vars(model)["forward"] = lambda x: model[0].part(x).tanh()
    return model


FLOATS = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
NETWORKS: list[tuple[Callable[[], nn.Module], Tensor]] = [
    (Branching, FLOATS),
    (Recurrent, torch.arange(20).reshape(4, 5) % 11),
    (with_graph_child, FLOATS),
    (conv, FLOATS),
    (tied, FLOATS),
    (hooked, FLOATS),
    (replaced, FLOATS),
]
ALL = pytest.mark.parametrize(("make", "inputs"), NETWORKS, ids=lambda value: getattr(value, "__name__", ""))


def trained(make: Callable[[], nn.Module], inputs: Tensor) -> nn.Module:
    torch.manual_seed(0)
    model = make()
    model(inputs)  # moves the running statistics
    return model.eval()


@ALL
def test_a_described_network_comes_back_equal(make: Callable[[], nn.Module], inputs: Tensor) -> None:
    model = trained(make, inputs)
    description = describe(model)
    rested = msgspec.json.decode(msgspec.json.encode(description), type=Description)
    again = rebuild(rested, weights_of(model, rested))
    assert torch.equal(again(inputs), model(inputs))
    assert not again.training
    assert torch.equal(again(inputs[:1]), model(inputs[:1]))


@ALL
def test_written_code_needs_torch_only_and_gives_the_same_outputs(
    tmp_path: Path, make: Callable[[], nn.Module], inputs: Tensor
) -> None:
    model = trained(make, inputs)
    description = describe(model)
    write_code(description, weights_of(model, description), tmp_path / "grown.py")
    code = (tmp_path / "grown.py").read_text()
    imports = [line.split()[1] for line in code.splitlines() if line.startswith(("import ", "from "))]
    assert set(imports) == {"torch"}
    space = {"__file__": str(tmp_path / "grown.py"), "__name__": "grown"}
    exec(compile(code, "grown.py", "exec"), space)
    network = space["load"]()  # type: ignore[operator]
    assert torch.equal(network(inputs), model(inputs))


def test_a_network_of_two_inputs_comes_back_equal() -> None:
    model = Two()
    description = describe(model, num_inputs=2)
    assert torch.equal(
        rebuild(description, weights_of(model, description))(FLOATS, FLOATS), model(FLOATS, FLOATS)
    )


def test_written_code_runs_in_a_process_that_cannot_see_esper(tmp_path: Path) -> None:
    model = trained(conv, FLOATS)
    description = describe(model)
    write_code(description, weights_of(model, description), tmp_path / "grown.py")
    program = "import grown, torch; print(tuple(grown.load()(torch.zeros(3, 6)).shape))"
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == "(3, 2)", done.stderr


class Deciding(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


def test_a_network_that_decides_while_it_runs_is_refused_with_a_reason() -> None:
    with pytest.raises(RunError, match="cannot be written as a graph"):
        describe(Deciding())


def test_training_flags_are_as_before() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout(), nn.BatchNorm1d(2).eval())
    describe(model)
    assert [module.training for module in model.modules()] == [True, True, True, False]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (Call("call_function", "f", "os.system", [], {}), "os.system is not a function"),
        (Call("call_function", "f", "torch.load", [], {}), "torch.load is not a function"),
        (Call("call_function", "f", "builtins.eval", [], {}), "builtins.eval is not"),
        (Call("call_function", "f", "aten.from_file.default", [], {}), "aten.from_file.default is not"),
        (Call("call_function", "f", "aten.nothing.default", [], {}), "aten.nothing.default is not"),
        (Call("call_function", "f", "aten.add.name", [], {}), "aten.add.name is not"),
        (Call("call_method", "f", "__reduce__", [], {}), "__reduce__ is not a method"),
        (Call("placeholder", "f", "x", {"code": "1"}, {}), "'code' is a kind of value"),
    ],
)
def test_a_description_calls_nothing_but_torch(call: Call, message: str) -> None:
    with pytest.raises(RunError, match=message):
        rebuild(Description({}, {}, (call,)), {})


@pytest.mark.parametrize("layer", [("Foreign", ""), ("Module.__class__", ""), ("functional", "")])
def test_a_description_builds_nothing_but_layers(layer: tuple[str, str]) -> None:
    with pytest.raises(RunError, match="not a layer"):
        rebuild(Description({"a": layer}, {}, ()), {})


def test_arguments_of_layers_are_never_run() -> None:
    with pytest.raises(RunError, match="arguments"):
        rebuild(Description({"a": ("Linear", "print('run'), 2")}, {}, ()), {})


def test_weights_of_another_network_are_refused() -> None:
    description = describe(nn.Linear(2, 2))
    with pytest.raises(RunError, match="do not fit"):
        rebuild(description, {})


def test_operators_and_shapes_survive() -> None:
    class Shapes(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return operator.neg(x.reshape(x.shape[0], -1)) ** 2

    assert torch.equal(rebuild(describe(Shapes()), {})(FLOATS), Shapes()(FLOATS))
