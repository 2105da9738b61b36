"""Candidate bodies learn, behind the host, what the loss gradient asks for. Does not know the host or its optimizer.

Each body ``b`` fits the normalised negative output gradient of its site from the site's input:
``min mean (b(x) + g / rms(g))^2`` with ``g = dL/dz``. On held-out pairs its worth is the first-order gain of adding it,
``a = mean <b(x), -g>``, times the share of the gradient that it explains, ``a * max(R2, 0)``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from esper.surgery.capture import Pair
from esper.surgery.site import Site

LEARNING_RATE = 2e-3
EQUATIONS = 4_096  # of a pair are enough for an update: an image gives one at every position
LEAST_ROWS = 8


class Worth(NamedTuple):
    """What held-out pairs say of one body: first-order gain, explained share, and their product."""

    gain: float
    r2: float

    @property
    def score(self) -> float:
        """``gain * max(r2, 0)``."""
        return self.gain * max(self.r2, 0.0)


class Shadow:
    """Several bodies, each at its own site, trained by one AdamW from the same stream of pairs.

    The targets are normalised, so one learning rate serves every host. Sums are taken in float32. A pair whose
    gradient is zero or not finite (an overflow step of mixed precision) is passed over.
    """

    def __init__(self, bodies: Mapping[str, tuple[Site, nn.Module]]) -> None:
        self.bodies = dict(bodies)
        self.num_updates = 0
        self._optimizer = torch.optim.AdamW(self._groups(), lr=LEARNING_RATE, fused=True)

    def update(self, pairs: Mapping[str, Sequence[Pair]]) -> None:
        """One optimizer step for every body that has pairs; ``pairs`` is keyed by site name.

        Of examples with many positions as many are read as make `EQUATIONS` positions, and at least `LEAST_ROWS`.
        """
        sites = {site.name: site for site, _ in self.bodies.values()}
        targets = {
            name: _targets([_thinned(pair, site) for pair in pairs[name]])
            for name, site in sites.items()
            if name in pairs
        }
        self._optimizer.zero_grad()
        with torch.enable_grad():
            for site, body in self.bodies.values():
                for x, target in targets.get(site.name, ()):
                    # One by one: a common sum would hold on to all their graphs, and bodies may lie on several devices.
                    loss = F.mse_loss(body(x), target)
                    (loss / len(pairs[site.name]) if len(pairs[site.name]) > 1 else loss).backward()
        self._optimizer.step()
        self.num_updates += 1

    @torch.no_grad()
    def worth(self, pairs: Mapping[str, Sequence[Pair]]) -> dict[str, Worth]:
        """First-order gain and explained share of each body on ``pairs`` (per-example gradients, keyed by site).

        Bodies are judged in evaluation mode.
        """
        return {name: self._worth(name, pairs) for name in self.bodies}

    def keep(self, names: Iterable[str]) -> None:
        """Drop every body that is not among ``names``; the others keep their optimizer state."""
        kept = set(names)
        for name in [name for name in self.bodies if name not in kept]:
            for parameter in self.bodies.pop(name)[1].parameters():
                self._optimizer.state.pop(parameter, None)
        self._optimizer.param_groups[0]["params"] = self._groups()

    def state_dict(self) -> dict[str, Any]:
        """Updates made, every body's tensors and the optimizer's state."""
        bodies = {name: body.state_dict() for name, (_, body) in self.bodies.items()}
        return {"num_updates": self.num_updates, "bodies": bodies, "optimizer": self._optimizer.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict` of a shadow with the same bodies."""
        self.num_updates = state["num_updates"]
        for name, (_, body) in self.bodies.items():
            body.load_state_dict(state["bodies"][name])
        self._optimizer.load_state_dict(state["optimizer"])

    def _groups(self) -> list[nn.Parameter]:
        return [parameter for _, body in self.bodies.values() for parameter in body.parameters()]

    def _worth(self, name: str, pairs: Mapping[str, Sequence[Pair]]) -> Worth:
        site, body = self.bodies[name]
        pairs_here = pairs.get(site.name, ())
        chosen = [(x.float(), -g.float()) for x, g, _ in pairs_here if bool(torch.isfinite(g).all())]
        squares = sum(float(g.square().sum()) for _, g in chosen)
        if not 0.0 < squares < float("inf"):
            return Worth(0.0, 0.0)
        sigma = (squares / sum(g.numel() for _, g in chosen)) ** 0.5
        with _as_judged(body):
            fits = [(body(x), g) for x, g in chosen]
        gain = sum(float((fit * g).sum()) for fit, g in fits) / sum(
            x.shape[site.source.batch_dim] for x, _ in chosen
        )
        error = sum(float((fit - g / sigma).square().sum()) for fit, g in fits)
        return Worth(gain, 1.0 - error / (squares / sigma**2))


def _thinned(pair: Pair, site: Site) -> Pair:
    """The first examples of ``pair``, or all where they have few positions."""
    source, target = site.source.batch_dim, site.target.batch_dim
    rows = pair.g.shape[target]
    positions = pair.g.numel() // max(rows * site.target.width, 1)
    wanted = max(EQUATIONS // max(positions, 1), LEAST_ROWS)
    if wanted >= rows:
        return pair
    return Pair(pair.x.narrow(source, 0, wanted), pair.g.narrow(target, 0, wanted), pair.z)


def _targets(pairs: Sequence[Pair]) -> list[tuple[Tensor, Tensor]]:
    """Input and normalised negative gradient of each of ``pairs`` that has one."""
    found = []
    for x, g, _ in pairs:
        rms = g.float().square().mean().sqrt()
        if 0.0 < float(rms) < math.inf:
            found.append((x.float(), -g.float() / rms))
    return found


@contextmanager
def _as_judged(body: nn.Module) -> Iterator[None]:
    """Put ``body`` into evaluation mode inside the context; each of its modules has its own mode afterwards."""
    modes = [(module, module.training) for module in body.modules()]
    body.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
