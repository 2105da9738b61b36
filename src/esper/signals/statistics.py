"""What every site says of itself over a window of sensed steps. Does not decide what follows from it.

Shapes: n rows (examples times positions, at most ``MAX_ROWS`` a step), d output units, p inputs, m random features;
of widths above ``MAX_WIDTH`` every so many-th unit is looked at.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from esper.events import Signal
from esper.surgery.capture import Pair
from esper.surgery.site import Port, Site

MAX_ROWS = 128
MAX_WIDTH = 256
NUM_FEATURES = 64
NUM_STATISTICS = 6
# No novelty gain lies below it; nan would be lost in JSON, and an event with nan is not equal to itself.
NOT_MEASURED = -NUM_FEATURES * MAX_WIDTH / 2


class Statistics:
    """What the sites show in a window of sensed steps: a sensed step keeps a few rows, all sums are made at the end.

    Novelty gain is the natural-gradient gain of what random ReLU features of the input add beyond the input itself.
    With ``P`` the features minus their linear fit from ``[x, 1]``, ``M = G'P/n``, ``A = P'P/n``, ``B = G'G/n``, ``C``
    and ``D`` these two damped by a hundredth of their mean eigenvalue, and ``W = D^-1 M C^-1``:
    ``1/2 tr(W'M) - tr(A C^-1) tr(B D^-1) / 2n``, the last term being the expectation of the first under no signal.
    """

    def __init__(self, sites: Sequence[Site], *, seed: int) -> None:
        self._sites = list(sites)
        self._seed = seed
        self._rows: dict[str, list[Pair]] = {}
        self.forget()

    def update(self, pairs: Mapping[str, Sequence[Pair]]) -> None:
        """Keep what one sensed step showed: the `rows` of each tensor; ``pairs`` is keyed by site name."""
        for site in self._sites:
            matched = _num_places(site.source) == _num_places(site.target)
            for x, g, z in pairs.get(site.name, ()):
                self._rows[site.name].append(Pair(x if matched and len(x) == len(g) else x[:0], g, z))

    @torch.no_grad()
    def read(self) -> tuple[Signal, ...]:
        """The window's signals, one a site, in the order of the sites; zeros where no gradient has come.

        The novelty gain is ``NOT_MEASURED`` where nothing has come, or inputs and gradients do not match row by row.
        """
        return tuple(_signal(site, self._measure(self._rows[site.name])) for site in self._sites)

    def forget(self) -> None:
        """Drop all rows; nothing has been seen any more."""
        self._rows = {site.name: [] for site in self._sites}

    def pool(self, states: Iterable[Mapping[str, Any]]) -> None:
        """Read the rows of all these states instead of its own."""
        pooled = [{name: [Pair(*pair) for pair in kept] for name, kept in state.items()} for state in states]
        self._rows = {site.name: [p for rows in pooled for p in rows[site.name]] for site in self._sites}

    def state_dict(self) -> dict[str, Any]:
        """The rows kept so far, on the CPU."""
        return {name: [[t.cpu() for t in pair] for pair in kept] for name, kept in self._rows.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict` of statistics of the same sites."""
        self._rows = {name: [Pair(*pair) for pair in kept] for name, kept in state.items()}

    def _measure(self, kept: Sequence[Pair]) -> list[float]:
        # Rows of a restored window lie on the CPU, and not every accelerator knows float64.
        pairs = [Pair(*(tensor.cpu() for tensor in pair)) for pair in kept]
        finite = [pair for pair in pairs if all(bool(torch.isfinite(tensor).all()) for tensor in pair)]
        if not finite:
            return [*[0.0] * (NUM_STATISTICS - 1), NOT_MEASURED]
        return [
            *(float(value) for value in _summary(finite)),
            self._novelty([pair for pair in finite if len(pair.x)]),
        ]

    def _novelty(self, matched: Sequence[Pair]) -> float:
        if not matched:
            return NOT_MEASURED
        pairs = [(pair.x, pair.g) for pair in matched]
        return float(novelty_gain(pairs, torch.Generator("cpu").manual_seed(self._seed)))


def novelty_gain(pairs: Sequence[tuple[Tensor, Tensor]], generator: torch.Generator) -> Tensor:
    """Novelty gain of ``NUM_FEATURES`` random features of ``x`` (n, p) for the gradients ``g`` (n, d), as a scalar.

    Both come in pieces, and all pieces lie on the CPU. Both are scaled to unit rms: no solve overflows, and the units
    of measurement do not matter. Sums are made of `MAX_ROWS` rows at a time, which are all that is held in float64.
    """
    n, width = sum(len(x) for x, _ in pairs), pairs[0][0].shape[1]
    x_scale, g_scale = _rms([x for x, _ in pairs]), _rms([g for _, g in pairs])
    weight = torch.randn(width + 1, NUM_FEATURES, generator=generator, dtype=torch.float64, device="cpu")

    def moments(x: Tensor) -> tuple[Tensor, ...]:
        linear, features = _linear(x, x_scale), _features(x, x_scale, weight)
        return linear.T @ linear / n, linear.T @ features / n

    own, shared = _sums(moments(few) for x, _ in pairs for few in x.split(MAX_ROWS))
    fit = torch.linalg.solve(_damped(own, 1e-6), shared)

    def novel_moments(x: Tensor, g: Tensor) -> tuple[Tensor, ...]:
        novel = _features(x, x_scale, weight).addmm_(_linear(x, x_scale), fit, alpha=-1.0)
        scaled = g.double() / g_scale
        return scaled.T @ novel / n, novel.T @ novel / n, scaled.T @ scaled / n

    blocks = (block for x, g in pairs for block in zip(x.split(MAX_ROWS), g.split(MAX_ROWS), strict=True))
    moment, a, b = _sums(novel_moments(x, g) for x, g in blocks)
    a_damped, b_damped = _damped(a, 1e-2), _damped(b, 1e-2)
    w = torch.linalg.solve(b_damped, torch.linalg.solve(a_damped, moment.T).T)
    freedom = torch.trace(torch.linalg.solve(a_damped, a)) * torch.trace(torch.linalg.solve(b_damped, b))
    gain: Tensor = 0.5 * (w * moment).sum()
    return gain - freedom / (2 * n)


def _linear(x: Tensor, scale: Tensor) -> Tensor:
    """``[x / scale, 1]`` in float64."""
    return torch.cat([x.double() / scale, scale.new_ones(len(x), 1)], dim=1)


def _features(x: Tensor, scale: Tensor, weight: Tensor) -> Tensor:
    """ReLU features of ``x / scale``, the last row of ``weight`` being the bias."""
    features = (x.double() / scale) @ weight[:-1]
    return features.div_(x.shape[1] ** 0.5).add_(weight[-1]).relu_()


def _sums(terms: Iterable[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    """Each place summed over all terms, in the tensors of the first."""
    found: tuple[Tensor, ...] = ()
    for term in terms:
        for total, more in zip(found, term, strict=bool(found)):
            total.add_(more)
        found = found or term
    return found


def _rms(pieces: Iterable[Tensor]) -> Tensor:
    """Root of the mean square of all pieces in float64, not below 1e-30."""
    blocks = [few for piece in pieces for few in piece.split(MAX_ROWS)]
    (squares,) = _sums((few.double().square().sum(),) for few in blocks)
    rms: Tensor = (squares / sum(few.numel() for few in blocks)).sqrt()
    return rms.clamp_min(1e-30)


def _signal(site: Site, values: Sequence[float]) -> Signal:
    variance, dead, correlation, rank, norm, novelty = values
    return Signal(
        site=site.name,
        variance=variance,
        dead_ratio=dead,
        correlation=correlation,
        effective_rank=rank,
        gradient_norm=norm,
        novelty_gain=novelty,
        health=(1.0 - dead) * rank * (1.0 - correlation),
    )


def rows(tensor: Tensor, port: Port) -> Tensor:
    """``tensor`` as float32 rows of features: at most ``MAX_ROWS`` of at most ``MAX_WIDTH``, both evenly spaced."""
    features_last = tensor.movedim(1, -1) if port.kind in ("signal", "image") else tensor
    *places, width = features_last.shape
    number, every_feature = math.prod(places), -(-width // MAX_WIDTH)
    every_row = -(-number // MAX_ROWS) or 1
    if len(places) == 1:
        return features_last[::every_row, ::every_feature].float()
    # Picked before they are laid out as rows, which would copy the whole tensor.
    return features_last[_picked(tuple(places), every_row, tensor.device)][:, ::every_feature].float()


@functools.lru_cache(maxsize=64)
def _picked(places: tuple[int, ...], every: int, device: torch.device) -> tuple[Tensor, ...]:
    """One index tensor a dimension: every so many-th of all places."""
    return torch.unravel_index(torch.arange(0, math.prod(places), every, device=device), places)


def _num_places(port: Port) -> int:
    """Positions of one example."""
    return math.prod(port.shape) // port.width


def _summary(pairs: Sequence[Pair]) -> list[Tensor]:
    """All signals of the outputs and gradients but the novelty gain; in float64 one pair at a time."""
    n = sum(len(pair.z) for pair in pairs)
    (mean,) = _sums((pair.z.double().sum(dim=0) / n,) for pair in pairs)
    centred = (pair.z.double() - mean for pair in pairs)
    (covariance,) = _sums((z.T @ z / n,) for z in centred)
    alive, squares = _sums(
        (pair.g.count_nonzero(dim=0), pair.g.double().square().sum() / n) for pair in pairs
    )
    variance = covariance.diagonal()
    deviation = variance.clamp_min(1e-12).sqrt()
    width = len(deviation)
    correlation = (covariance / deviation / deviation[:, None]).abs().sum() - width
    return [
        variance.mean(),
        (alive == 0).double().mean(),
        (correlation / max(width * (width - 1), 1)).clamp(0.0, 1.0),
        _effective_rank(covariance) / width,
        squares.sqrt(),
    ]


def _effective_rank(covariance: Tensor) -> Tensor:
    """Exponential of the entropy of the normalised eigenvalues (Roy and Vetterli, 2007)."""
    values = torch.linalg.eigvalsh(covariance).clamp_min(0.0)
    share = values / values.sum().clamp_min(1e-30)
    return torch.exp(-(share * share.clamp_min(1e-30).log()).sum())


def _damped(matrix: Tensor, share: float) -> Tensor:
    mean = matrix.diagonal().mean().clamp_min(1e-12)
    return matrix + share * mean * torch.eye(len(matrix), dtype=matrix.dtype, device=matrix.device)
