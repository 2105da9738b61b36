"""What every site says of itself over a window of sensed steps. Does not decide what follows from it.

Shapes: n rows (examples times positions, at most ``MAX_ROWS`` a step), d output units, p inputs, m random features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from esper.events import Signal
from esper.surgery.capture import Pair
from esper.surgery.site import Port, Site

MAX_ROWS = 512
MAX_WIDTH = 256
NUM_FEATURES = 64
NUM_STATISTICS = 5


class Statistics:
    """Running statistics of all sites, in one packed tensor on the device, read once a window.

    Novelty gain is the natural-gradient gain of what random ReLU features of the input add beyond the input itself.
    With ``P`` the features minus their linear fit from ``[x, 1]``, ``M = G'P/n``, ``A = P'P/n``, ``B = G'G/n`` (both
    damped by a hundredth of their mean eigenvalue) and ``W = B^-1 M A^-1``: ``1/2 tr(W'M) - md/2n``, the last term
    being its expectation under no signal.
    """

    def __init__(self, sites: Sequence[Site], *, seed: int) -> None:
        self._sites = list(sites)
        self._generator = torch.Generator().manual_seed(seed)
        self._packed: Tensor | None = None
        self._count = 0
        self._novelty = {site.name: _Novelty(self._generator) for site in sites}

    def update(self, pairs: Mapping[str, Sequence[Pair]]) -> None:
        """Add what one sensed step showed; ``pairs`` is keyed by site name."""
        rows = [self._measure(site, pairs.get(site.name, ())) for site in self._sites]
        device = next((row.device for row in rows if row is not None), torch.device("cpu"))
        zeros = torch.zeros(NUM_STATISTICS, device=device)
        packed = torch.stack([zeros if row is None else row for row in rows]) if rows else zeros[None]
        self._packed = packed if self._packed is None else self._packed + packed
        self._count += 1

    def read(self) -> tuple[Signal, ...]:
        """The window's signals, one a site, in the order of the sites; empty before the first update."""
        if self._packed is None:
            return ()
        means = (self._packed / self._count).tolist()
        return tuple(self._signal(site, values) for site, values in zip(self._sites, means, strict=True))

    def state_dict(self) -> dict[str, Any]:
        """All sums so far and the state of the random features' generator."""
        return {
            "packed": self._packed,
            "count": self._count,
            "generator": self._generator.get_state(),
            "novelty": {name: novelty.state_dict() for name, novelty in self._novelty.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict` of statistics of the same sites."""
        self._packed, self._count = state["packed"], state["count"]
        self._generator.set_state(state["generator"])
        for name, novelty in self._novelty.items():
            novelty.load_state_dict(state["novelty"][name])

    def _signal(self, site: Site, values: Sequence[float]) -> Signal:
        variance, dead, correlation, rank, norm = values
        return Signal(
            site=site.name,
            variance=variance,
            dead_ratio=dead,
            correlation=correlation,
            effective_rank=rank,
            gradient_norm=norm,
            novelty_gain=self._novelty[site.name].gain(),
            health=(1.0 - dead) * rank * (1.0 - correlation),
        )

    @torch.no_grad()
    def _measure(self, site: Site, pairs: Sequence[Pair]) -> Tensor | None:
        if not pairs:
            return None
        z = torch.cat([rows(pair.z, site.target) for pair in pairs])
        g = torch.cat([rows(pair.g, site.target) for pair in pairs])
        if not bool(torch.isfinite(g).all()):
            return None
        if all(_aligned(pair, site) for pair in pairs):
            self._novelty[site.name].update(torch.cat([rows(pair.x, site.source) for pair in pairs]), g)
        return _summary(z, g)


class _Novelty:
    """Second moments of (input, random features of it, output gradient) of one site."""

    def __init__(self, generator: torch.Generator) -> None:
        self._generator = generator
        self._weight: Tensor | None = None
        self._moments: tuple[Tensor, Tensor, Tensor] | None = None
        self._num_rows = 0

    def update(self, x: Tensor, g: Tensor) -> None:
        """Add rows ``x`` (n, p) and ``g`` (n, d); gradients are scaled to unit rms, so that no unit overflows."""
        x = x[:, :MAX_WIDTH].double()
        g = g[:, :MAX_WIDTH].double()
        g = g / g.square().mean().sqrt().clamp_min(1e-30)
        u = torch.cat([x, torch.ones_like(x[:, :1]), self._features(x)], dim=1)
        new = (u.T @ u, g.T @ u, g.T @ g)
        old = self._moments
        self._moments = new if old is None else (old[0] + new[0], old[1] + new[1], old[2] + new[2])
        self._num_rows += len(x)

    def gain(self) -> float:
        """Novelty gain in units of the scaled gradient; 0.0 before the first update."""
        if self._moments is None:
            return 0.0
        uu, gu, gg = (moment / self._num_rows for moment in self._moments)
        n, m, d = self._num_rows, NUM_FEATURES, len(gg)
        xx, xf, ff = uu[:-m, :-m], uu[:-m, -m:], uu[-m:, -m:]
        fit = torch.linalg.solve(_damped(xx, 1e-6), xf)
        a, b = _damped(ff - xf.T @ fit, 1e-2), _damped(gg, 1e-2)
        moment = gu[:, -m:] - gu[:, :-m] @ fit
        w = torch.linalg.solve(b, moment) @ torch.linalg.inv(a)
        return float(0.5 * (w * moment).sum()) - m * d / (2 * n)

    def state_dict(self) -> dict[str, Any]:
        """The random features and the sums so far."""
        moments = None if self._moments is None else list(self._moments)
        return {"weight": self._weight, "moments": moments, "num_rows": self._num_rows}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`."""
        self._weight, self._num_rows = state["weight"], state["num_rows"]
        self._moments = None if state["moments"] is None else tuple(state["moments"])

    def _features(self, x: Tensor) -> Tensor:
        if self._weight is None:
            weight = torch.randn(x.shape[1] + 1, NUM_FEATURES, generator=self._generator, dtype=torch.float64)
            scale = x.square().mean().sqrt().clamp_min(1e-30).cpu() * x.shape[1] ** 0.5
            weight[:-1] /= scale
            self._weight = weight.to(x.device)
        return torch.relu(x @ self._weight[:-1] + self._weight[-1])


def rows(tensor: Tensor, port: Port) -> Tensor:
    """``tensor`` as float32 rows of features, at most ``MAX_ROWS`` of them, evenly spaced."""
    if port.kind in ("signal", "image"):
        tensor = tensor.movedim(1, -1)
    flat = tensor.reshape(-1, tensor.shape[-1])
    stride = -(-len(flat) // MAX_ROWS)
    return flat[::stride].float()


def _aligned(pair: Pair, site: Site) -> bool:
    """Whether each row of the output belongs to one row of the input."""
    x, g = rows(pair.x, site.source), rows(pair.g, site.target)
    return len(x) == len(g)


def _summary(z: Tensor, g: Tensor) -> Tensor:
    centred = (z - z.mean(dim=0))[:, :MAX_WIDTH]
    covariance = centred.T @ centred / len(z)
    deviation = covariance.diagonal().clamp_min(1e-12).sqrt()
    width = len(deviation)
    correlation = (covariance / deviation / deviation[:, None]).abs().sum() - width
    return torch.stack(
        [
            z.var(dim=0, correction=0).mean(),
            (g == 0).all(dim=0).float().mean(),
            (correlation / max(width * (width - 1), 1)).clamp(0.0, 1.0),
            _effective_rank(covariance) / width,
            g.square().sum(dim=1).mean().sqrt(),
        ]
    )


def _effective_rank(covariance: Tensor) -> Tensor:
    """Exponential of the entropy of the normalised eigenvalues (Roy and Vetterli, 2007)."""
    values = torch.linalg.eigvalsh(covariance.double()).clamp_min(0.0)
    share = values / values.sum().clamp_min(1e-30)
    return torch.exp(-(share * share.clamp_min(1e-30).log()).sum()).to(covariance.dtype)


def _damped(matrix: Tensor, share: float) -> Tensor:
    mean = matrix.diagonal().mean().clamp_min(1e-12)
    return matrix + share * mean * torch.eye(len(matrix), dtype=matrix.dtype, device=matrix.device)
