"""Every zoo host with the sites found in it, and grafts for them that already do something. Knows no law."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from esper.blueprints import build, offers
from esper.surgery.graft import Graft
from esper.surgery.isolation import isolated
from esper.surgery.site import Site
from esper.surgery.sites import discover
from esper.surgery.trace import Trace, trace
from hosts import HOSTS, Host


@dataclass(frozen=True)
class Place:
    """A site of a host."""

    host: Host
    site: Site

    def __str__(self) -> str:
        return f"{self.host.name}-{self.site.name or 'root'}"


@functools.cache
def sites(host: Host) -> tuple[Site, ...]:
    """Every site that growth can offer on this host."""
    return discover(traced(host, host.make(0))).offers


def traced(host: Host, model: nn.Module) -> Trace:
    """What ``model``, one of this host's, does with a batch."""
    with isolated(model):
        return trace(model, lambda: host.loss(model, host.batch(0)))


PLACES = tuple(Place(host, site) for host in HOSTS for site in sites(host))
"""All sites of all hosts."""


def fresh(site: Site, *, number: int = 0, seed: int = 0) -> Graft:
    """A fresh graft: the ``number``-th recipe that fits."""
    fitting = offers(site)
    recipe = fitting[number % len(fitting)]
    return Graft(build(recipe, site, seed=seed), site, recipe)


def awake(site: Site, *, number: int = 0, seed: int = 0) -> Graft:
    """A graft as if trained: no projection is zero any more."""
    made = fresh(site, number=number, seed=seed)
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return made


def outputs(host: Host, model: nn.Module, *, seed: int = 0, training: bool = False) -> Tensor:
    """Scores of one batch; the same random stream at every call, and the model stays as it was."""
    inputs, _ = host.batch(seed)
    with isolated(model), torch.no_grad():
        model.train(training)
        torch.default_generator.manual_seed(0)  # torch.manual_seed also prepares every accelerator, slowly
        return host.forward(model, inputs)
