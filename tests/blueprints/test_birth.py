"""Dead, loud, exploding and ill-shaped blocks are refused, with the reason."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from esper.blueprints import blueprint, catalogue, check_birth
from esper.errors import RecipeError
from esper.recipe import Recipe
from esper.surgery.site import Port, Site

VECTORS = Site("fc1", source=Port("vector", (8,)), target=Port("vector", (6,)))
SEQUENCES = Site("rnn", source=Port("sequence", (5, 8)), target=Port("sequence", (5, 8)))


@pytest.fixture(autouse=True)
def _same_catalogue_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "_blueprints", dict(catalogue._blueprints))


def zero(num_in: int, num_out: int) -> nn.Linear:
    layer = nn.Linear(num_in, num_out)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


class Computed(nn.Module):
    """Any function of the input and one zero layer."""

    def __init__(self, layer: nn.Module, function: Callable[[Tensor, nn.Module], Tensor]) -> None:
        super().__init__()
        self.layer = layer
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, self.layer)


class Unused(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.last = zero(8, 6)
        self.forgotten = nn.Linear(8, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(x)


class WithConstant(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.last = zero(8, 6)
        self.scale = torch.ones(6, dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(x) * self.scale.to(x.device)


class LengthBound(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.over_time = zero(5, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.over_time(x.transpose(1, 2)).transpose(1, 2)


def first_call_only() -> nn.Module:
    layer = zero(8, 6)
    layer.weight.data.add_(float(next(CALLS)))
    return layer


CALLS = iter(range(10))

REFUSED = {
    "dead": (lambda: nn.Sequential(zero(8, 6), nn.ReLU(), zero(6, 6)), "dead in part: 0.weight"),
    "dead outright": (
        lambda: nn.Sequential(zero(8, 6), Computed(zero(6, 6), lambda x, f: f(x) * x)),
        "is dead: no",
    ),
    "relu last": (
        lambda: nn.Sequential(nn.Linear(8, 6), nn.ReLU(), zero(6, 6), nn.ReLU()),
        "is dead: no parameter has a gradient",
    ),
    "loud": (lambda: nn.Linear(8, 6), "changes the output when fresh"),
    "nan": (lambda: Computed(zero(8, 6), lambda x, f: f(x) / 0.0), "changes the output when fresh"),
    "exploding": (
        lambda: Computed(zero(8, 6), lambda x, f: f(x) * 1e4),
        "explodes: one step changes the output by",
    ),
    "exploding later": (
        lambda: Computed(zero(8, 6), lambda x, f: f(x) * (1 + f(x).abs() * 1e30) ** 2),
        "explodes",
    ),
    "nan later": (
        lambda: Computed(zero(8, 6), lambda x, f: f(x) * (1 - 1e6 * f(x).abs()).sqrt()),
        "explodes",
    ),
    "bound to float32": (
        lambda: Computed(zero(8, 6), lambda x, f: f(x @ torch.eye(8))),
        "fails at fc1.*BFloat16",
    ),
    "unused": (Unused, "dead in part: forgotten.weight has no gradient"),
    "wrong width": (lambda: zero(8, 5), r"gives \(2, 5\) where \(2, 6\) is wanted"),
    "wrong input": (lambda: zero(7, 6), "fails at fc1.*shapes cannot be multiplied"),
    "unbatched": (
        lambda: Computed(zero(8, 6), lambda x, f: f(x).reshape(2, 6)),
        "fails at fc1.*invalid for input",
    ),
    "constant": (WithConstant, "create constants like the input"),
    "double": (lambda: zero(8, 6).double(), "weight is torch.float64, not float32"),
    "not from the seed": (first_call_only, "differs between two builds with one seed"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_bad_block_is_refused_with_the_reason(case: str) -> None:
    make, reason = REFUSED[case]
    blueprint("bad", pairs=[("vector", "vector")])(lambda _source, _target: make())
    with pytest.raises(RecipeError, match=reason):
        check_birth(Recipe.of("bad"), VECTORS)


def test_a_block_bound_to_one_length_is_refused() -> None:
    blueprint("bound", pairs=[("sequence", "sequence")])(lambda _source, _target: LengthBound())
    with pytest.raises(RecipeError, match="bound fails at rnn"):
        check_birth(Recipe.of("bound"), SEQUENCES)


def test_a_good_block_with_dropout_and_batch_norm_passes_and_leaves_random_streams() -> None:
    blueprint("noisy", pairs=[("vector", "vector")])(
        lambda _source, _target: nn.Sequential(nn.Linear(8, 6), nn.BatchNorm1d(6), nn.Dropout(), zero(6, 6))
    )
    state = torch.get_rng_state()
    check_birth(Recipe.of("noisy"), VECTORS)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_check_works_where_gradients_are_off() -> None:
    with torch.no_grad():
        check_birth(Recipe.of("mlp"), VECTORS)


def test_what_one_step_may_change_grows_with_the_width() -> None:
    def scaled(scale: float) -> None:
        blueprint("scaled", pairs=[("vector", "vector")])(
            lambda source, _target: Computed(zero(source.width, 6), lambda x, f: f(x) * scale)
        )

    wide = Site("wide", source=Port("vector", (8192,)), target=Port("vector", (6,)))
    scaled(1.0)
    check_birth(Recipe.of("scaled"), wide)
    scaled(30.0)
    with pytest.raises(RecipeError, match="explodes"):
        check_birth(Recipe.of("scaled"), wide)
