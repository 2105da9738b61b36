"""Gradients at sites, read from the user's own passes, as they would be without a gradient scaler."""

from __future__ import annotations

import torch

from esper.growth.host import Pairs
from esper.growth.training import Training
from esper.surgery.capture import Capture, Pair
from esper.surgery.site import Site


class Readings:
    """Reads from its making until it is stopped.

    ``scale`` is that of the backward pass to come: a scaler changes it after the optimizer's step, before ours.
    """

    def __init__(self, training: Training, capture: Capture) -> None:
        self._training = training
        self._capture = capture
        self._capture.arm()
        self.scale = training.scale

    @property
    def sites(self) -> tuple[Site, ...]:
        """Where it reads."""
        return self._capture.sites

    def take(self) -> Pairs:
        """The pairs since the last call, by site name."""
        pairs, scale = self._capture.take(), self.scale
        self.scale = self._training.scale
        if scale == 1.0:
            return pairs
        return {site: [_unscaled(pair, scale) for pair in own] for site, own in pairs.items()}

    def stop(self) -> None:
        """Take every hook out again."""
        self._capture.disarm()


def _unscaled(pair: Pair, scale: float) -> Pair:
    """In float32 at least: what a scaler has lifted into the range of float16 would fall out of it again."""
    return pair._replace(g=pair.g.to(torch.promote_types(pair.g.dtype, torch.float32)) / scale)
