"""Networks as the operations that they run."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from esper.errors import RunError
from esper.training.code import write_code
from esper.training.graph import describe, rebuild, weights_of
from esper.training.program import describe_program, program_of
from esper.training.twin import described


class Constants(nn.Module):
    """A buffer that is not saved, and a tensor made on the way."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 3)
        self.register_buffer("scale", torch.rand(3), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x) * self.scale + torch.tensor([1.0, 2.0, 3.0])


class Graph(nn.Module):
    """Sums what arrives over edges, and looks at what it is given."""

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        if not isinstance(edges, Tensor):
            raise ValueError("edges are numbers of vertices")
        return torch.zeros_like(x).index_add(0, edges[1], x[edges[0]])


class Recurrent(nn.Module):
    """A layer that keeps its weights in a list of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 3, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.lstm(x)[0]


def test_constants_and_unsaved_buffers_are_part_of_a_description() -> None:
    model, x = Constants().eval(), torch.rand(5, 4)
    twin = rebuild(*describe_program(model, (x,)))
    assert torch.equal(twin(x), model(x))


def test_what_is_made_of_buffers_alone_is_part_of_a_graph_of_layers() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(4, 3)
            self.register_buffer("scale", torch.rand(3))

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x) * self.scale.square()

    model, x = Scaled().eval(), torch.rand(5, 4)
    description = describe(model)
    twin = rebuild(description, weights_of(model, description))
    assert torch.equal(twin(x), model(x))
    assert description.layers.keys() == {"inner"}


def test_a_tensor_made_on_the_way_is_no_part_of_a_graph_of_layers_and_the_operations_stand_in(
    tmp_path: Path,
) -> None:
    model, x = Constants().eval(), torch.rand(5, 4)
    with pytest.raises(RunError, match="makes a tensor on its way"):
        describe(model)
    description, state = described(model, (x,))
    assert torch.equal(rebuild(description, state)(x), model(x))
    write_code(description, state, tmp_path / "grown.py")
    space = {"__file__": str(tmp_path / "grown.py"), "__name__": "grown"}
    exec((tmp_path / "grown.py").read_text(), space)
    assert torch.equal(space["load"]()(x), model(x))  # type: ignore[operator]


def test_whatever_a_network_raises_when_it_is_traced_is_a_reason_and_no_crash() -> None:
    with pytest.raises(RunError, match="edges are numbers"):
        describe(Graph(), num_inputs=2)


def test_an_input_that_is_no_batch_may_change_its_lengths() -> None:
    x, edges = torch.rand(5, 3), torch.tensor([[0, 1, 2, 4, 3, 0, 1], [1, 2, 0, 3, 4, 2, 2]])
    program = program_of(Graph(), (x, edges)).module()
    for num, given in ((5, edges), (5, edges[:, :3]), (9, edges[:, 2:])):
        more = torch.rand(num, 3)
        assert torch.equal(program(more, given), Graph()(more, given))


def test_a_recurrent_layer_is_exported_without_a_warning() -> None:
    model, x = Recurrent().eval(), torch.rand(2, 6, 4)
    program = program_of(model, (x,)).module()
    more = torch.rand(3, 6, 4)
    assert torch.allclose(program(more), model(more))
