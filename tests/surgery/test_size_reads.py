"""A forward pass that reads the sizes of its layers would compute something else with other sizes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

from esper.surgery.blocks import Blocks, find_blocks
from esper.surgery.isolation import isolated
from esper.surgery.site import Site
from esper.surgery.sites import discover
from esper.surgery.size_reads import without_read_sizes
from esper.surgery.trace import trace

OTHERS = {"fc2..fc3", "fc3..fc4"}
Between = Callable[["Net", Tensor], Tensor]


class Net(nn.Module):
    """Two blocks in a row; what happens inside the first is a matter of the test, the second is as blocks are."""

    def __init__(self, between: Between) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(6, 8), nn.Linear(8, 6)
        self.fc3, self.fc4 = nn.Linear(6, 5), nn.Linear(5, 2)
        self.between = between

    def forward(self, x: Tensor) -> Tensor:
        y = self.fc2(self.between(self, torch.relu(self.fc1(x))))
        return self.fc4(torch.relu(self.fc3(y)))


class Images(nn.Module):
    """Two convolutions, the first of which says how large it is."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.second = nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.norm(self.first(x)) / self.norm.num_features)


def plain(_: Net, y: Tensor) -> Tensor:
    return y


def scaled(net: Net, y: Tensor) -> Tensor:
    return y / math.sqrt(net.fc1.out_features)


def read_by_the_reader(net: Net, y: Tensor) -> Tensor:
    return y * net.fc2.in_features**-0.5


def raising(net: Net, y: Tensor) -> Tensor:
    if net.fc1.out_features != 8:
        raise ValueError("this is not the layer that I know")
    return y


def named(net: Net, y: Tensor) -> Tensor:
    return y * len(net.fc1.weight.shape)


def passes(model: nn.Module, x: Tensor) -> Callable[[], object]:
    def run() -> None:
        with isolated(model, eval_mode=True):
            model(x)

    return run


def seen(model: nn.Module, run: Callable[[], object]) -> Blocks:
    found = trace(model, run)
    return find_blocks(found, spans(discover(found).offers))


def spans(sites: tuple[Site, ...]) -> list[Site]:
    return [site for site in sites if site.is_span]


def batch(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("between", [scaled, read_by_the_reader, raising])
def test_a_block_whose_sizes_are_read_is_none_and_others_are_left(between: Between) -> None:
    model, x = Net(between), batch(4, 6)
    before = seen(model, passes(model, x))
    assert set(before.found) == {"fc1..fc2", *OTHERS}
    after = without_read_sizes(model, before, passes(model, x))
    assert set(after.found) == OTHERS
    assert "reads how large its layers are" in after.reasons["fc1..fc2"]


@pytest.mark.parametrize("between", [plain, named])
def test_a_block_whose_sizes_nobody_reads_is_left(between: Between) -> None:
    model, x = Net(between), batch(4, 6)
    before = seen(model, passes(model, x))
    assert without_read_sizes(model, before, passes(model, x)) == before


def test_it_is_noticed_behind_layers_that_say_nothing_yet() -> None:
    model, x = Net(scaled), batch(4, 6)
    nn.init.zeros_(model.fc4.weight)
    nn.init.zeros_(model.fc4.bias)
    found = without_read_sizes(model, seen(model, passes(model, x)), passes(model, x))
    assert set(found.found) == OTHERS


def test_the_size_of_a_norm_is_one_of_its_convolution() -> None:
    model, x = Images(), batch(4, 2, 6, 6)
    before = seen(model, passes(model, x))
    assert set(before.found) == {"first..second"}
    assert not without_read_sizes(model, before, passes(model, x)).found


def test_the_layers_say_the_truth_afterwards() -> None:
    model, x = Net(raising), batch(4, 6)
    without_read_sizes(model, seen(model, passes(model, x)), passes(model, x))
    assert (model.fc1.in_features, model.fc1.out_features, model.fc2.in_features) == (6, 8, 8)
    assert model.training
    assert not model._forward_hooks
    assert not model.fc2._forward_pre_hooks


def test_where_every_pass_has_other_data_nothing_is_said() -> None:
    model, data = Net(scaled), others()
    before = seen(model, lambda: passes(model, next(data))())
    assert without_read_sizes(model, before, lambda: passes(model, next(data))()) == before


def others() -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(0)
    while True:
        yield torch.randn(4, 6, generator=generator)


def test_what_another_process_notices_counts() -> None:
    model, x = Net(plain), batch(4, 6)
    before, asked = seen(model, passes(model, x)), [True, False, True, False]

    def anywhere(found: bool) -> bool:
        return found or asked.pop(0)

    after = without_read_sizes(model, before, passes(model, x), anywhere=anywhere)
    assert not asked
    assert len(after.found) == 2
    assert len(before.found) == 3


def test_a_pass_that_fails_by_itself_says_so() -> None:
    model, x = Net(plain), batch(4, 6)
    before = seen(model, passes(model, x))
    with pytest.raises(RuntimeError, match="shape"):
        without_read_sizes(model, before, passes(model, x[:, :5]))
