"""Candidate bodies learn, behind the host, what the loss gradient asks for. Does not know the host or its optimizer.

Each body ``b`` fits the normalised negative output gradient of its site from the site's input:
``min mean (b(x) + g / rms(g))^2`` with ``g = dL/dz``. On held-out pairs its worth is the first-order gain of adding it,
``a = mean <b(x), -g>``, times the share of the gradient that it explains, ``a * max(R2, 0)``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from esper.signals.moments import Moments
from esper.surgery.capture import Pair
from esper.surgery.site import Port, Site

LEARNING_RATE = 2e-3
EQUATIONS = 4_096  # of a pair are enough for an update: a sequence gives one at every position
IMAGE_EQUATIONS = 2_048  # an image does, too, and its neighbours are much alike
LEAST_ROWS = 8


class Pooling(Protocol):
    """How several processes that see batches of their own learn the same bodies; ``mean`` is in place."""

    def mean(self, tensors: Sequence[Tensor]) -> None:
        """Replace every tensor by its mean over all processes."""


class Worth(NamedTuple):
    """What held-out pairs say of one body: first-order gain, explained share, and their product."""

    gain: float
    r2: float

    @property
    def score(self) -> float:
        """``gain * max(r2, 0)``."""
        return self.gain * max(self.r2, 0.0)


class Shadow:
    """Several bodies, each at its own site, trained by AdamW from the same stream of pairs.

    The targets are normalised, so one learning rate serves every host. Sums are taken in float32. A pair whose
    gradient is zero or not finite (an overflow step of mixed precision) is passed over. With a ``pooling`` the pairs
    of all processes together are what is fitted; each must then bring pairs of the same sites. Without one the bodies
    take their steps one after the other, so that no two of them have gradients at a time.
    """

    def __init__(
        self, bodies: Mapping[str, tuple[Site, nn.Module]], *, pooling: Pooling | None = None
    ) -> None:
        self.bodies = dict(bodies)
        self._pooling = pooling
        self.num_updates = 0
        self._moments = {
            name: Moments(body.parameters(), lr=LEARNING_RATE) for name, (_, body) in self.bodies.items()
        }

    def update(self, pairs: Mapping[str, Sequence[Pair]]) -> None:
        """One optimizer step for every body that has pairs; ``pairs`` is keyed by site name. See `few_examples`."""
        squares = self._mean_squares(pairs)
        with torch.enable_grad():
            for site, group in groupby(self.bodies.items(), key=lambda item: item[1][0].name):
                targets = _normalised(pairs.get(site, ()), squares[site])
                for name, (_, body) in group:
                    _fit(body, targets, num_pairs=len(pairs.get(site, ())))
                    if self._pooling is None:
                        self._moments[name].step()
        if self._pooling is not None:
            self._pooling.mean([_gradient(p) for _, body in self.bodies.values() for p in body.parameters()])
            for moments in self._moments.values():
                moments.step()
        self.num_updates += 1

    def worth(self, pairs: Mapping[str, Sequence[Pair]]) -> dict[str, Worth]:
        """First-order gain and explained share of each body on ``pairs`` (per-example gradients, keyed by site).

        Bodies are judged in evaluation mode.
        """
        appraisal = self.appraisal()
        for site, own in pairs.items():
            for pair in own:
                appraisal.add(site, pair)
        return appraisal.worths()

    def appraisal(self) -> Appraisal:
        """The same, of pairs that come one after the other."""
        return Appraisal(self.bodies, pooling=self._pooling)

    def keep(self, names: Iterable[str]) -> None:
        """Drop every body that is not among ``names``, its memory with it; the others keep their optimizer state."""
        kept = set(names)
        for name in [name for name in self.bodies if name not in kept]:
            del self._moments[name]
            empty(self.bodies.pop(name)[1])

    def state_dict(self) -> dict[str, Any]:
        """Updates made, every body's tensors and the optimizer's state."""
        bodies = {name: body.state_dict() for name, (_, body) in self.bodies.items()}
        moments = {name: own.state_dict() for name, own in self._moments.items()}
        return {"num_updates": self.num_updates, "bodies": bodies, "moments": moments}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict` of a shadow with the same bodies."""
        self.num_updates = state["num_updates"]
        for name, (_, body) in self.bodies.items():
            body.load_state_dict(state["bodies"][name])
            self._moments[name].load_state_dict(state["moments"][name])

    def _mean_squares(self, pairs: Mapping[str, Sequence[Pair]]) -> dict[str, list[Tensor]]:
        """By site, the mean square of the gradient of each pair."""
        names = dict.fromkeys(site.name for site, _ in self.bodies.values())
        squares = {n: [g.float().square().mean() for _, g, _ in pairs.get(n, ())] for n in names}
        if self._pooling is not None:
            self._pooling.mean([square for own in squares.values() for square in own])
        return squares


def empty(body: nn.Module) -> None:
    """Give the memory of what nobody needs any more back at once.

    A traced body and its graph hold on to each other, until the garbage collector comes to such old objects.
    """
    for parameter in body.parameters():
        parameter.data, parameter.grad = parameter.data.new_empty(0), None


class Appraisal:
    """Adds up what pairs say of bodies, so that none of them has to be kept."""

    def __init__(
        self, bodies: Mapping[str, tuple[Site, nn.Module]], *, pooling: Pooling | None = None
    ) -> None:
        self._bodies = dict(bodies)
        self._pooling = pooling
        self._sums = {name: _Sums() for name in bodies}

    @torch.no_grad()
    def add(self, site: str, pair: Pair) -> None:
        """Read a pair of the site of that name; one whose gradient is not finite is passed over."""
        if not bool(torch.isfinite(pair.g).all()):
            return
        for name, (own, body) in self._bodies.items():
            if own.name == site:
                with _as_judged(body):
                    self._sums[name].read(body, pair, own)

    def worths(self) -> dict[str, Worth]:
        """What has been read, with a pooling by all processes together, says so much of each body."""
        found = [sums.as_tensor() for sums in self._sums.values()]
        if self._pooling is not None:
            self._pooling.mean(found)
        return {name: _Sums(*values.tolist()).worth() for name, values in zip(self._sums, found, strict=True)}


@dataclass
class _Sums:
    """Over all outputs of all examples: products of a body's output ``f`` and the wanted ``g``."""

    ff: float = 0.0
    fg: float = 0.0
    gg: float = 0.0
    num_values: float = 0.0
    num_examples: float = 0.0

    def as_tensor(self) -> Tensor:
        """The sums in their order."""
        return torch.tensor(
            [self.ff, self.fg, self.gg, self.num_values, self.num_examples], dtype=torch.float64
        )

    def read(self, body: nn.Module, pair: Pair, site: Site) -> None:
        """A few examples at a time: a body may need more memory than the whole host."""
        few, source, target = few_examples(site).most, site.source.batch_dim, site.target.batch_dim
        for x, g in zip(pair.x.split(few, source), pair.g.split(few, target), strict=True):
            self._add(body(x.float()), -g.float(), x.shape[source])

    def _add(self, fit: Tensor, g: Tensor, num_examples: int) -> None:
        self.ff += float(fit.square().sum())
        self.fg += float((fit * g).sum())
        self.gg += float(g.square().sum())
        self.num_values += g.numel()
        self.num_examples += num_examples

    def worth(self) -> Worth:
        """R2 is that of ``f`` against ``g / sigma``, ``sigma`` being the rms of ``g``."""
        if not 0.0 < self.gg < math.inf:
            return Worth(0.0, 0.0)
        sigma = math.sqrt(self.gg / self.num_values)
        return Worth(self.fg / self.num_examples, sigma * (2.0 * self.fg - sigma * self.ff) / self.gg)


@dataclass(frozen=True)
class FewExamples:
    """Keeps the first ``most`` examples."""

    most: int

    def __call__(self, tensor: Tensor, port: Port) -> Tensor:
        """The first examples of a batch at this port."""
        if tensor.shape[port.batch_dim] <= self.most:
            return tensor
        return tensor.narrow(port.batch_dim, 0, self.most)


def few_examples(site: Site) -> FewExamples:
    """Of examples with many positions as many as make enough of them, and at least `LEAST_ROWS`."""
    positions = math.prod(site.target.shape) // max(site.target.width, 1)
    enough = IMAGE_EQUATIONS if site.target.kind == "image" else EQUATIONS
    return FewExamples(max(enough // max(positions, 1), LEAST_ROWS))


def _normalised(pairs: Sequence[Pair], squares: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Input, and negative gradient over the root of its mean square, of each pair that has one."""
    rms = [square.sqrt() for square in squares]
    return [
        (x.float(), g.float() / -scale)
        for (x, g, _), scale in zip(pairs, rms, strict=True)
        if 0.0 < float(scale) < math.inf
    ]


def _fit(body: nn.Module, targets: Iterable[tuple[Tensor, Tensor]], *, num_pairs: int) -> None:
    """Give ``body`` the gradient of the sum of its mean squared errors over ``num_pairs``."""
    for x, target in targets:
        # One by one: a common sum would hold on to all their graphs, and bodies may lie on several devices.
        loss = F.mse_loss(body(x), target)
        (loss / num_pairs if num_pairs > 1 else loss).backward()


def _gradient(parameter: nn.Parameter) -> Tensor:
    if parameter.grad is None:
        parameter.grad = torch.zeros_like(parameter)
    return parameter.grad


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
