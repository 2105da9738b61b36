"""Statistics of sites against direct formulas."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from esper.events import Signal
from esper.signals.statistics import MAX_ROWS, MAX_WIDTH, NOT_MEASURED, Statistics, novelty_gain, rows
from esper.surgery.capture import Pair
from esper.surgery.site import Port, Site

VECTOR = Site("fc", Port("vector", (5,)), Port("vector", (4,)))
IMAGE = Site("conv", Port("image", (3, 6, 6)), Port("image", (4, 6, 6)))
SIGNAL = Site("conv1", Port("signal", (3, 9)), Port("signal", (4, 9)))
SEQUENCE = Site("rnn", Port("sequence", (6, 3), 1), Port("sequence", (6, 4), 1))
STRIDED = Site("down", Port("image", (3, 6, 6)), Port("image", (4, 3, 3)))
FLAT = Site("head", Port("image", (3, 6, 6)), Port("vector", (4,)))


def normal(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def draw(site: Site, seed: int, num_examples: int = 20) -> Pair:
    """Correlated outputs of uneven size, and gradients of which unit 2 has none."""
    z = normal(site.target.batched(num_examples), seed)
    axis = 1 if site.target.kind in ("signal", "image") else z.dim() - 1
    mixed = (z.movedim(axis, -1) @ normal((4, 4), 99)).movedim(-1, axis) + 3.0
    g = normal(site.target.batched(num_examples), seed + 1)
    g.select(axis, 2).zero_()
    return Pair(normal(site.source.batched(num_examples), seed + 2), g, mixed)


def picked(site: Site, pair: Pair) -> Pair:
    """What a sensed step keeps of it."""
    return Pair(rows(pair.x, site.source), rows(pair.g, site.target), rows(pair.z, site.target))


def measure(site: Site, pairs: list[Pair], *, seed: int = 0) -> Signal:
    statistics = Statistics([site], seed=seed)
    for pair in pairs:
        statistics.update({site.name: [picked(site, pair)]})
    (signal,) = statistics.read()
    return signal


def flat(tensor: Tensor, port: Port) -> NDArray[np.float64]:
    array = tensor.double().numpy()
    if port.kind in ("signal", "image"):
        array = np.moveaxis(array, 1, -1)
    return array.reshape(-1, array.shape[-1])


def effective_rank(z: NDArray[np.float64]) -> float:
    values = np.linalg.eigvalsh(np.cov(z.T, bias=True))
    share = values[values > 1e-12] / values[values > 1e-12].sum()
    return float(np.exp(-(share * np.log(share)).sum()))


@pytest.mark.parametrize("site", [VECTOR, SIGNAL, SEQUENCE, STRIDED, FLAT], ids=lambda site: site.name)
def test_numbers_are_those_of_the_formulas(site: Site) -> None:
    num_examples = 10
    pairs = [draw(site, seed, num_examples) for seed in (0, 10)]
    assert all(len(flat(pair.z, site.target)) <= MAX_ROWS for pair in pairs)
    z = np.concatenate([flat(pair.z, site.target) for pair in pairs])
    g = np.concatenate([flat(pair.g, site.target) for pair in pairs])
    signal = measure(site, pairs)
    assert signal.site == site.name
    assert signal.variance == pytest.approx(z.var(axis=0).mean(), rel=1e-4)
    assert signal.dead_ratio == 0.25
    correlation = np.abs(np.corrcoef(z.T))
    assert signal.correlation == pytest.approx((correlation.sum() - 4) / 12, rel=1e-4)
    assert signal.effective_rank == pytest.approx(effective_rank(z) / 4, rel=1e-4)
    assert signal.gradient_norm == pytest.approx(np.sqrt((g**2).sum(axis=1).mean()), rel=1e-4)
    assert signal.health == pytest.approx(0.75 * signal.effective_rank * (1 - signal.correlation), rel=1e-4)


def test_all_units_dead_all_equal_or_all_apart_are_the_ends_of_the_scales() -> None:
    z = normal((100, 4), 0)
    apart = torch.linalg.qr(z - z.mean(0)).Q
    equal = z[:, :1].expand(100, 4)
    x = normal((100, 5), 1)
    dead = measure(VECTOR, [Pair(x, torch.zeros(100, 4), apart)])
    assert (dead.dead_ratio, dead.health, dead.gradient_norm) == (1.0, 0.0, 0.0)
    alive = measure(VECTOR, [Pair(x, normal((100, 4), 2), apart)])
    assert alive.dead_ratio == 0.0
    assert alive.effective_rank == pytest.approx(1.0, abs=1e-4)
    assert alive.correlation == pytest.approx(0.0, abs=1e-4)
    assert alive.health == pytest.approx(1.0, abs=1e-3)
    same = measure(VECTOR, [Pair(x, normal((100, 4), 2), equal)])
    assert same.effective_rank == pytest.approx(0.25, abs=1e-3)
    assert same.correlation == pytest.approx(1.0, abs=1e-4)
    assert same.health == pytest.approx(0.0, abs=1e-3)


@given(
    site=st.sampled_from([VECTOR, IMAGE, SIGNAL, SEQUENCE, FLAT]),
    seed=st.integers(0, 1000),
    scale=st.sampled_from([1e-12, 1.0, 1e12, 1e25]),
    num_examples=st.integers(1, 40),
)
def test_ratios_lie_between_0_and_1_and_everything_is_finite(
    site: Site, seed: int, scale: float, num_examples: int
) -> None:
    pair = draw(site, seed, num_examples)
    signal = measure(site, [Pair(pair.x * scale, pair.g * scale, pair.z * scale)])
    for ratio in (signal.dead_ratio, signal.correlation, signal.effective_rank, signal.health):
        assert -1e-5 <= ratio <= 1.0 + 1e-5
    assert np.isfinite([signal.variance, signal.gradient_norm, signal.novelty_gain]).all()


def noisy(num_rows: int, seed: int) -> tuple[Tensor, Tensor]:
    return normal((num_rows, 5), seed), normal((num_rows, 4), seed + 1)


def gain(x: Tensor, g: Tensor, seed: int = 0) -> float:
    return float(novelty_gain([(x, g)], torch.Generator().manual_seed(seed)))


@pytest.mark.parametrize("num_units", [1, 32, 128])
def test_gradients_that_are_noise_hold_no_novelty(num_units: int) -> None:
    draws = [(normal((300, 5), seed), normal((300, num_units), seed + 1)) for seed in range(0, 80, 2)]
    gains = np.array([gain(x, g) for x, g in draws])
    assert abs(gains.mean()) < 3 * gains.std(ddof=1) / np.sqrt(len(gains))


@pytest.mark.parametrize("size", [0.0, 10.0])
def test_gradients_that_the_layer_can_express_itself_hold_no_novelty(size: float) -> None:
    x, noise = noisy(2000, 0)
    linear = x @ normal((5, 4), 7) * size + 3.0 * size
    assert gain(x, linear + noise) < 0.02


def test_gradients_that_the_layer_cannot_express_hold_novelty() -> None:
    x, noise = noisy(2000, 0)
    kinked = torch.relu(x @ normal((5, 4), 7))
    assert gain(x, kinked + 0.5 * noise) > 0.3
    assert gain(x, kinked + 0.5 * noise) > gain(x, kinked + 2.0 * noise) > gain(x, noise)


@pytest.mark.parametrize("factor", [1e-8, 1e8])
def test_novelty_does_not_depend_on_the_scale_of_gradients_or_inputs(factor: float) -> None:
    x, noise = noisy(500, 0)
    g = torch.relu(x @ normal((5, 4), 7)) + 0.5 * noise
    assert gain(x, factor * g) == pytest.approx(gain(x, g), rel=1e-3)
    assert gain(1e3 * x, g) == pytest.approx(gain(x, g), rel=0.05)


def test_novelty_is_the_formula() -> None:
    x, g = noisy(300, 0)
    x64, g64 = x.double().numpy(), g.double().numpy()
    g64 /= np.sqrt((g64**2).mean())
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(6, 64, generator=generator, dtype=torch.float64).numpy()
    scale = np.sqrt((x64**2).mean()) * np.sqrt(5)
    features = np.maximum(x64 @ weight[:-1] / scale + weight[-1], 0)
    line = np.concatenate([x64, np.ones((300, 1))], axis=1)
    novel = features - line @ np.linalg.lstsq(line, features, rcond=None)[0]
    m, a, b = g64.T @ novel / 300, novel.T @ novel / 300, g64.T @ g64 / 300
    c = np.linalg.inv(a + 0.01 * np.trace(a) / 64 * np.eye(64))
    d = np.linalg.inv(b + 0.01 * np.trace(b) / 4 * np.eye(4))
    expected = 0.5 * np.trace((d @ m @ c).T @ m) - np.trace(a @ c) * np.trace(b @ d) / 600
    assert gain(x, g) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("num_examples", [20, 128])
def test_a_site_whose_rows_do_not_match_has_statistics_but_no_novelty(num_examples: int) -> None:
    pair = draw(STRIDED, 0, num_examples)
    if num_examples == MAX_ROWS:
        assert len(rows(pair.x, STRIDED.source)) == len(rows(pair.g, STRIDED.target))
    signal = measure(STRIDED, [pair])
    assert signal.novelty_gain == NOT_MEASURED == -8192
    assert signal.variance > 0.0


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("where", [0, 1, 2], ids=["input", "gradient", "output"])
def test_a_step_that_is_not_finite_is_dropped(bad: float, where: int) -> None:
    good, broken = draw(VECTOR, 0), list(draw(VECTOR, 10))
    broken[where] = broken[where].clone()
    broken[where][0, 0] = bad
    assert measure(VECTOR, [good, Pair(*broken)]) == measure(VECTOR, [good])
    assert measure(VECTOR, [Pair(*broken)]) == measure(VECTOR, [])


def test_sites_without_gradients_have_zeros_no_novelty_and_the_order_is_kept() -> None:
    statistics = Statistics([VECTOR, IMAGE], seed=0)
    statistics.update({"conv": [picked(IMAGE, draw(IMAGE, 0))], "stranger": []})
    first, second = statistics.read()
    assert (first.site, second.site) == ("fc", "conv")
    assert (first.variance, first.gradient_norm, first.effective_rank) == (0.0, 0.0, 0.0)
    assert first.novelty_gain == NOT_MEASURED < second.novelty_gain
    assert second.variance > 0.0
    assert Statistics([], seed=0).read() == ()


def test_the_same_seed_gives_the_same_signals_and_no_global_stream_is_touched() -> None:
    state = torch.get_rng_state()
    pairs = [draw(VECTOR, 0, 100)]
    assert measure(VECTOR, pairs, seed=3) == measure(VECTOR, pairs, seed=3)
    assert measure(VECTOR, pairs, seed=3).novelty_gain != measure(VECTOR, pairs, seed=4).novelty_gain
    assert torch.equal(torch.get_rng_state(), state)


def test_signals_do_not_depend_on_the_default_device() -> None:
    pairs = [draw(VECTOR, 0), draw(VECTOR, 10)]
    expected, statistics = measure(VECTOR, pairs), Statistics([VECTOR, IMAGE], seed=0)
    with torch.device("meta"):
        statistics.update({"fc": [picked(VECTOR, pair) for pair in pairs]})
        assert statistics.read()[0] == expected


def test_a_restored_window_ends_as_the_first_one_does() -> None:
    sites = [VECTOR, SEQUENCE]
    statistics, restored = Statistics(sites, seed=5), Statistics(sites, seed=5)
    sequences = [picked(SEQUENCE, draw(SEQUENCE, seed)) for seed in (0, 1)]
    statistics.update({"fc": [picked(VECTOR, draw(VECTOR, 0))], "rnn": sequences})
    restored.load_state_dict(copy.deepcopy(statistics.state_dict()))
    for each in (statistics, restored):
        each.update({"fc": [picked(VECTOR, draw(VECTOR, 20))]})
    assert restored.read() == statistics.read()
    assert restored.read() == restored.read()


def test_rows_are_few_evenly_spaced_and_features_last() -> None:
    image = torch.arange(2 * 3 * 20 * 20).reshape(2, 3, 20, 20)
    picked = rows(image, Port("image", (3, 20, 20)))
    everything = image.movedim(1, -1).reshape(-1, 3)
    assert picked.dtype == torch.float32
    assert 0 < len(picked) <= MAX_ROWS
    stride = -(-len(everything) // MAX_ROWS)
    assert torch.equal(picked, everything[::stride].float())
    wide = rows(torch.ones(3, 5 * MAX_WIDTH), Port("vector", (5 * MAX_WIDTH,)))
    assert wide.shape[1] <= MAX_WIDTH
