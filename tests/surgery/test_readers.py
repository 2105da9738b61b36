from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from esper.surgery.readers import watched
from esper.surgery.sites import discover
from esper.surgery.trace import Trace, trace
from hosts import HOSTS, Host
from models.test_spectral_norm import OLD


class Peeking(nn.Module):
    """Brings its input to the dtype of the second layer, as several feed-forward blocks of transformers do."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 6), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.relu(self.first(x)).to(self.second.weight.dtype))


def traced(model: nn.Module, *inputs: Tensor) -> Trace:
    return trace(model, lambda: model(*inputs))


def test_a_layer_whose_weight_its_caller_looks_at_is_exposed_and_cannot_be_dropped() -> None:
    seen = traced(nn.Sequential(Peeking(), nn.Linear(4, 2)), torch.randn(3, 4))
    assert seen.exposed == {"0.second"}
    assert discover(seen).droppable == {"0.first", "1"}


def test_what_is_inside_a_module_that_is_at_work_is_exposed_by_itself_alone() -> None:
    class Attending(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(4, 2, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.attention(x, x, x)[0]

    assert traced(Attending(), torch.randn(3, 5, 4)).exposed == {"attention.out_proj"}


def test_hooks_of_a_layer_that_compute_its_weight_do_not_expose_it() -> None:
    model = OLD.make(0)
    assert trace(model, lambda: OLD.forward(model, OLD.batch(0)[0])).exposed == set()


def test_an_exception_that_the_model_catches_leaves_nothing_at_work() -> None:
    class Failing(nn.Module):
        def forward(self, _: Tensor) -> Tensor:
            raise ValueError

    class Careful(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.part, self.other = nn.Sequential(nn.Linear(4, 4), Failing()), nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            with pytest.raises(ValueError):  # noqa: PT011
                self.part(x)
            return self.other(x)

    assert traced(Careful(), torch.randn(3, 4)).exposed == set()


@pytest.mark.parametrize("host", HOSTS, ids=lambda host: host.name)
def test_watching_leaves_the_parameters_where_they_were(host: Host) -> None:
    model = host.make(0)
    before = [(module._parameters, list(module._parameters.items())) for module in model.modules()]
    with watched(model, lambda _: None):
        host.loss(model, host.batch(0))
    after = [(module._parameters, list(module._parameters.items())) for module in model.modules()]
    for (own, items), (found, now) in zip(before, after, strict=True):
        assert found is own
        assert [name for name, _ in now] == [name for name, _ in items]
        assert all(a is b for (_, a), (_, b) in zip(items, now, strict=True))


def test_a_copy_made_meanwhile_is_not_watched() -> None:
    model, told = Peeking(), list[str]()
    with watched(model, told.append):
        twin = copy.deepcopy(model)
        told.clear()
        twin(torch.randn(3, 4))
        assert told == []
        assert type(twin.first._parameters) is dict
        model(torch.randn(3, 4))
        assert set(told) == {"first", "second"}
