"""Bodies that learn what the gradient asks for, and what held-out pairs say of them."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor, nn

from esper.blueprints.layers import traced
from esper.signals.shadow import Shadow, Worth, few_examples
from esper.surgery.capture import Pair
from esper.surgery.site import Port, Site

VECTOR = Site("fc", Port("vector", (3,)), Port("vector", (2,)))
OTHER = Site("other", Port("vector", (3,)), Port("vector", (2,)))
TIME_FIRST = Site("rnn", Port("sequence", (6, 3), 1), Port("sequence", (6, 2), 1))


def body(seed: int = 0) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        made = nn.Sequential(nn.Linear(3, 16), nn.Tanh(), nn.Linear(16, 2))
    nn.init.zeros_(made[2].weight)
    nn.init.zeros_(made[2].bias)
    return made


def wanted(x: Tensor) -> Tensor:
    """What the host lacks: within reach of a body, out of reach of a line."""
    return torch.stack([torch.tanh(2.0 * x[..., 0] * x[..., 1]), x[..., 2].abs() - 0.8], dim=-1)


def lacking(step: int, scale: float = 1.0) -> Pair:
    generator = torch.Generator().manual_seed(step)
    x = torch.randn(64, 3, generator=generator)
    return Pair(x, -scale * wanted(x), torch.zeros(64, 2))


def noise(step: int) -> Pair:
    generator = torch.Generator().manual_seed(step)
    return Pair(
        torch.randn(64, 3, generator=generator), torch.randn(64, 2, generator=generator), torch.zeros(64, 2)
    )


def trained(
    draw: Callable[[int], Pair], *, steps: int = 300, scale: float = 1.0, site: Site = VECTOR
) -> Shadow:
    shadow = Shadow({"b": (site, body())})
    for step in range(steps):
        pair = draw(step)
        shadow.update({site.name: [pair._replace(g=pair.g * scale)]})
    return shadow


def held_out(draw: Callable[[int], Pair]) -> dict[str, list[Pair]]:
    return {"fc": [draw(10_000 + i) for i in range(8)]}


def parameters(shadow: Shadow) -> list[Tensor]:
    return [p.detach().clone() for _, b in shadow.bodies.values() for p in b.parameters()]


def test_a_wanted_function_within_reach_scores_high_on_held_out_pairs() -> None:
    worth = trained(lacking).worth(held_out(lacking))["b"]
    assert worth.r2 > 0.6
    assert worth.gain > 0.5
    assert worth.score == worth.gain * worth.r2


@pytest.mark.parametrize(
    ("site", "shape", "read"),
    [
        (Site("s", Port("image", (2, 8, 8)), Port("image", (2, 8, 8))), (64, 2, 8, 8), (32, 2, 8, 8)),
        (Site("s", Port("image", (2, 64, 64)), Port("image", (2, 64, 64))), (64, 2, 64, 64), (8, 2, 64, 64)),
        (Site("s", Port("sequence", (64, 2), 1), Port("sequence", (64, 2), 1)), (64, 80, 2), (64, 64, 2)),
        (Site("s", Port("vector", (2,)), Port("vector", (2,))), (5_000, 2), (4_096, 2)),
        (Site("s", Port("vector", (2,)), Port("vector", (2,))), (100, 2), (100, 2)),
    ],
)
def test_updates_ask_for_no_more_examples_than_their_positions_make_necessary(
    site: Site, shape: tuple[int, ...], read: tuple[int, ...]
) -> None:
    x = torch.randn(shape)
    kept = few_examples(site)(x, site.target)
    assert kept.shape == read
    assert torch.equal(kept, x[tuple(map(slice, read))])


def test_noise_scores_about_nothing_on_held_out_pairs() -> None:
    worth = trained(noise).worth(held_out(noise))["b"]
    assert -0.1 < worth.r2 < 0.01
    assert abs(worth.gain) < 0.05
    assert worth.score < 0.005


def test_gain_and_r2_are_what_their_formulas_say() -> None:
    shadow = trained(lacking, steps=20)
    pairs = held_out(lacking)["fc"]
    x, g = torch.cat([p.x for p in pairs]), torch.cat([p.g for p in pairs])
    fit = shadow.bodies["b"][1](x).detach()
    sigma = g.square().mean().sqrt()
    worth = shadow.worth({"fc": pairs})["b"]
    assert worth.gain == pytest.approx(float((fit * -g).sum(dim=1).mean()), rel=1e-4)
    explained = 1 - (fit + g / sigma).square().sum() / (g / sigma).square().sum()
    assert worth.r2 == pytest.approx(float(explained), rel=1e-4)


def test_examples_of_time_first_sequences_are_counted_not_time_steps() -> None:
    shadow = Shadow({"b": (TIME_FIRST, body())})
    nn.init.ones_(shadow.bodies["b"][1][2].bias)
    x, g = torch.zeros(6, 4, 3), torch.full((6, 4, 2), -1.0)
    worth = shadow.worth({"rnn": [Pair(x, g, g)]})["b"]
    assert worth.gain == pytest.approx(6 * 2.0)


def test_a_negative_share_scores_nothing() -> None:
    assert Worth(gain=2.0, r2=-0.5).score == 0.0
    assert Worth(gain=2.0, r2=0.5).score == 1.0
    assert Worth(gain=-2.0, r2=0.5).score == -1.0


def test_one_update_is_one_adamw_step_on_the_mean_over_pairs_of_the_normalised_fit() -> None:
    shadow, twin = Shadow({"b": (VECTOR, body())}), body()
    pairs = [lacking(0), lacking(1, scale=50.0)]
    shadow.update({"fc": pairs})
    losses = [(twin(p.x) + p.g / p.g.square().mean().sqrt()).square().mean() for p in pairs]
    torch.stack(losses).mean().backward()
    torch.optim.AdamW(twin.parameters(), lr=2e-3, fused=True).step()
    for ours, expected in zip(parameters(shadow), twin.parameters(), strict=True):
        torch.testing.assert_close(ours, expected)
    assert shadow.num_updates == 1


def test_bodies_do_not_disturb_each_other_and_each_reads_its_own_site() -> None:
    together = Shadow({"a": (VECTOR, body(1)), "b": (OTHER, body(2)), "idle": (TIME_FIRST, body(3))})
    alone = Shadow({"b": (OTHER, body(2))})
    for step in range(5):
        together.update({"fc": [noise(step)], "other": [lacking(step)]})
        alone.update({"other": [lacking(step)]})
    assert all(torch.equal(a, b) for a, b in zip(parameters(together)[4:8], parameters(alone), strict=True))
    fresh = body(3).parameters()
    assert all(torch.equal(a, b) for a, b in zip(parameters(together)[8:], fresh, strict=True))


def test_a_factor_on_all_gradients_changes_no_body_beyond_rounding() -> None:
    plain, scaled = trained(lacking, steps=30), trained(lacking, steps=30, scale=65_536.0)
    for a, b in zip(parameters(plain), parameters(scaled), strict=True):
        torch.testing.assert_close(a, b)
    one, other = (s.worth(held_out(lacking))["b"] for s in (plain, scaled))
    assert other.score == pytest.approx(one.score, rel=1e-4)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 0.0])
def test_a_pair_whose_gradient_is_zero_or_not_finite_is_passed_over(bad: float) -> None:
    good, broken = lacking(0), lacking(1)._replace(g=torch.full((64, 2), bad))
    mixed, alone = Shadow({"b": (VECTOR, body())}), Shadow({"b": (VECTOR, body())})
    before = parameters(mixed)
    mixed.update({"fc": [broken]})
    assert all(torch.equal(a, b) for a, b in zip(parameters(mixed), before, strict=True))
    mixed.update({"fc": [broken, good]})
    alone.update({"fc": [good]})
    moved = [a - b for a, b in zip(parameters(mixed), before, strict=True)]
    assert all(bool(torch.isfinite(change).all()) for change in moved)
    assert any(bool((change != 0).any()) for change in moved)
    assert mixed.worth({"fc": [broken]})["b"] == Worth(0.0, 0.0)
    if not math.isfinite(bad):
        worth = mixed.worth({"fc": [broken, *held_out(lacking)["fc"]]})["b"]
        assert worth == mixed.worth(held_out(lacking))["b"]


def test_a_body_that_diverged_has_no_score() -> None:
    shadow = Shadow({"b": (VECTOR, body())})
    for bias in (float("nan"), float("inf"), 1e30):
        nn.init.constant_(shadow.bodies["b"][1][2].bias, bias)
        assert not shadow.worth(held_out(lacking))["b"].score > 0.0


def test_bodies_are_judged_in_evaluation_mode_and_go_on_in_their_own() -> None:
    normed = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 2))
    normed[2].eval()
    shadow, before = Shadow({"b": (VECTOR, normed)}), copy.deepcopy(normed.state_dict())
    worth = shadow.worth({"fc": [lacking(0)]})["b"]
    assert [module.training for module in normed.modules()] == [True, True, True, False, True]
    assert all(torch.equal(normed.state_dict()[name], tensor) for name, tensor in before.items())
    shadow.bodies["b"][1].eval()
    assert shadow.worth({"fc": [lacking(0)]})["b"] == worth


def test_sites_without_pairs_have_no_worth() -> None:
    shadow = Shadow({"b": (VECTOR, body())})
    shadow.update({})
    assert shadow.worth({}) == {"b": Worth(0.0, 0.0)}
    assert shadow.worth({"fc": []}) == {"b": Worth(0.0, 0.0)}


def test_bodies_learn_also_where_gradients_are_switched_off() -> None:
    shadow = Shadow({"b": (VECTOR, body())})
    before = parameters(shadow)
    with torch.no_grad():
        shadow.update({"fc": [lacking(0)]})
    assert not all(torch.equal(a, b) for a, b in zip(parameters(shadow), before, strict=True))


def test_half_precision_pairs_are_fitted_in_single() -> None:
    half = Shadow({"b": (VECTOR, body())})
    pair = lacking(0)
    low = Pair(*(tensor.to(torch.bfloat16) for tensor in pair))
    half.update({"fc": [low]})
    single = Shadow({"b": (VECTOR, body())})
    single.update({"fc": [Pair(*(tensor.float() for tensor in low))]})
    assert all(torch.equal(a, b) for a, b in zip(parameters(half), parameters(single), strict=True))
    assert half.worth({"fc": [low]}) == single.worth({"fc": [low]})


def two() -> Shadow:
    return Shadow({"a": (VECTOR, body(1)), "b": (OTHER, body(2))})


def advance(shadow: Shadow, steps: range) -> None:
    for step in steps:
        shadow.update({"fc": [lacking(step)], "other": [noise(step)]})


def test_bodies_that_are_kept_go_on_as_if_the_others_had_never_been() -> None:
    shadow, alone = two(), Shadow({"b": (OTHER, body(2))})
    advance(shadow, range(10))
    shadow.keep(["b", "unknown"])
    advance(shadow, range(10, 20))
    advance(alone, range(20))
    assert list(shadow.bodies) == ["b"]
    assert list(shadow.worth({})) == ["b"]
    assert all(torch.equal(a, b) for a, b in zip(parameters(shadow), parameters(alone), strict=True))


class Witness(nn.Linear):
    """A body that notes, at each of its calls, how many parameters of all bodies have a gradient."""

    def __init__(self, among: list[Witness], seen: list[int]) -> None:
        super().__init__(3, 2)
        self._among, self._seen = among, seen
        among.append(self)

    def forward(self, x: Tensor) -> Tensor:
        self._seen.append(sum(p.grad is not None for body in self._among for p in body.parameters()))
        return super().forward(x)


class Alone:
    """A pooling of one process."""

    def mean(self, tensors: Sequence[Tensor]) -> None:
        """Nothing to do."""


@pytest.mark.parametrize(("pooling", "most"), [(None, 0), (Alone(), 4)])
def test_no_two_bodies_have_gradients_at_a_time_unless_they_are_pooled(
    pooling: Alone | None, most: int
) -> None:
    seen: list[int] = []
    among: list[Witness] = []
    bodies = {name: (VECTOR, Witness(among, seen)) for name in "abc"}
    Shadow(bodies, pooling=pooling).update({"fc": [lacking(0)]})
    assert max(seen) == most
    assert not any(p.grad is not None for body in among for p in body.parameters())


def test_pooled_by_one_process_bodies_learn_what_they_learn_without() -> None:
    pooled = Shadow({"a": (VECTOR, body(1)), "b": (OTHER, body(2))}, pooling=Alone())
    plain = two()
    advance(pooled, range(5))
    advance(plain, range(5))
    assert all(torch.equal(a, b) for a, b in zip(parameters(pooled), parameters(plain), strict=True))


def test_a_body_that_is_dropped_gives_its_memory_back_though_somebody_may_hold_it() -> None:
    dropped = traced(body(1))
    shadow = Shadow({"a": (VECTOR, dropped), "b": (OTHER, body(2))})
    advance(shadow, range(2))
    shadow.keep(["b"])
    assert all(p.untyped_storage().nbytes() == 0 and p.grad is None for p in dropped.parameters())
    assert all(p.untyped_storage().nbytes() > 0 for p in parameters(shadow))


@pytest.mark.parametrize("kept", [("a", "b"), ("b",)])
def test_a_restored_shadow_goes_on_to_the_bit(kept: tuple[str, ...]) -> None:
    shadow, restored = two(), two()
    advance(shadow, range(7))
    shadow.keep(kept)
    restored.keep(kept)
    restored.load_state_dict(copy.deepcopy(shadow.state_dict()))
    assert restored.num_updates == 7
    for each in (shadow, restored):
        advance(each, range(7, 15))
    assert all(torch.equal(a, b) for a, b in zip(parameters(shadow), parameters(restored), strict=True))
    assert restored.state_dict()["num_updates"] == 15
