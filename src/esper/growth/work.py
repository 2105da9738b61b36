"""The state that the phases of growth share: sizes, counters, the record, and what is told to the outside."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import msgspec
import torch
from torch import nn

from esper.blueprints.catalogue import build, cost, offers
from esper.controller.candidate import Candidate
from esper.controller.judge import Judge, Verdict
from esper.controller.rules import Controller, Pace, View
from esper.errors import ConfigurationError
from esper.events import AnyEvent, Attached, Judged, Signal
from esper.growth.budget import Budget, Size
from esper.growth.contender import Contender
from esper.growth.guard import Guard
from esper.growth.host import Closure, Host, no_closure
from esper.growth.optimizers import accepts, adopt, assign
from esper.growth.record import attach_copy, attached
from esper.growth.training import Training
from esper.recipe import Recipe
from esper.surgery.graft import Graft, attach, like_host
from esper.surgery.random_streams import streams_kept
from esper.surgery.site import Site
from esper.surgery.site_map import Parts, SiteMap
from esper.surgery.widening import unhampered

Prunable = Literal["nothing", "grafts", "all"]
Joining = Literal["finish", "rounds"]


@dataclass(frozen=True)
class Setup:
    """What does not change in a run, but for what is found anew when widenings are joined between its rounds.

    ``sites``, ``runs``, ``droppable`` and ``parts`` are those of the latest `SiteMap`; ``only`` are the patterns by
    which its sites are chosen, ``None`` for all.
    """

    training: Training
    host: Host
    sites: tuple[Site, ...]
    runs: Mapping[str, float]
    droppable: frozenset[str]
    start: Size
    pace: Pace
    controller: Controller
    judge: Judge
    budget: Budget
    recipes: tuple[Recipe, ...] | None
    seed: int
    prune: Prunable = "grafts"
    parts: Parts = field(default_factory=Parts)
    only: Sequence[str] | None = None
    join: Joining = "finish"

    def __post_init__(self) -> None:
        if self.join not in get_args(Joining):
            raise ConfigurationError(f"join is one of {', '.join(get_args(Joining))}, not {self.join!r}")
        if self.join == "rounds" and not self.training.ranks.can_resize:
            raise ConfigurationError(
                "join='rounds' makes layers larger while they train, which a wrapped model does not learn of: leave it "
                "at 'finish', or grow in one process"
            )
        if self.prune not in get_args(Prunable):
            raise ConfigurationError(f"prune is one of {', '.join(get_args(Prunable))}, not {self.prune!r}")
        if self.prune == "all" and not self.training.ranks.can_resize:
            raise ConfigurationError(
                "prune='all' makes layers smaller, which a wrapped model does not learn of: prune it in one process"
            )


@dataclass
class Tally:
    """What is counted; plain data, saved as it is. ``refusals`` by candidate, ``cuts`` refused by exit module."""

    step: int = 0
    births: int = 0
    tests: int = 0
    refused_rounds: int = 0
    params: int = 0
    macs: int = 0
    prunings: int = 0
    refusals: dict[str, int] = field(default_factory=dict)
    cuts: dict[str, int] = field(default_factory=dict)


class Work:
    """Set-up, tally, growth record and history of one run."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.closure: Closure = no_closure
        self.guard = Guard(setup.training, setup.host)
        self.tally = Tally(params=setup.start.params, macs=setup.start.macs)
        self.record: list[dict[str, Any]] = []
        self.history: list[AnyEvent] = []
        self.listeners: list[Callable[[AnyEvent], object]] = []
        self.sites: SiteMap | None = None  # as found last, where that was after the start

    @property
    def size(self) -> Size:
        """The model as it is now."""
        return Size(self.tally.params, self.tally.macs)

    def emit(self, event: AnyEvent) -> None:
        """Add an event to the history and tell everyone who asked."""
        self.history.append(event)
        for listener in self.listeners:
            listener(event)

    def view(self, signals: Sequence[Signal]) -> View:
        """What the controller may know: every candidate that the budget allows."""
        sites = unhampered(self.setup.host.model, self.setup.sites)
        candidates = [c for site in sites for c in self._candidates(site) if not self._too_large(c)]
        return View(candidates, signals, self.tally.refusals)

    def birth(self, candidate: Candidate) -> Graft:
        """A fresh graft with initial values of its own."""
        self.tally.births += 1
        body = build(candidate.recipe, candidate.site, seed=self.setup.seed * 1_000_003 + self.tally.births)
        return Graft(body, candidate.site, candidate.recipe)

    def start_of(self, candidate: Candidate, trained: nn.Module) -> Graft:
        """A newborn graft with the inner weights that ``trained`` learned in the shadow.

        Its last projection stays at zero, so that it changes no output.
        """
        graft = self.birth(candidate)
        learned, last = trained.state_dict(), _last_projection(graft)
        for name, value in graft.body.state_dict().items():
            if name not in last:
                value.copy_(learned[name])
        return graft

    def contender(self, name: str, grafts: Sequence[Graft], *, exclusive: bool = False) -> Contender:
        """Grafts on trial, on the host's device and in its dtype."""
        for graft in grafts:
            like_host(graft, self.setup.host.model)
            graft.train(self.setup.host.model.get_submodule(graft.site.exit).training)
        return Contender(name, grafts, self.setup.host, self.setup.training.optimizer, exclusive=exclusive)

    def unacceptable(self, graft: Graft) -> str | None:
        """Why the optimizer could not train ``graft``; ``None`` if it can."""
        optimizer = self.setup.training.optimizer
        exit_module = self.setup.host.model.get_submodule(graft.site.exit)
        return accepts(optimizer, assign(optimizer, exit_module, graft))

    def attach(self, candidate: Candidate, contender: Contender) -> str:
        """Let the winner of a trial join the live model, as trained, with its optimizer state; return its path."""
        (graft,) = contender.grafts
        self.guard.before_attach(self.tally.step)
        path = attach(self.setup.host.model, graft)
        for averaged in self.setup.training.averaged:
            attach_copy(averaged, graft)
        self.setup.training.ranks.compare(self.setup.host.model)
        self.setup.training.ranks.join(graft, contender.optimizer)
        adopt(self.setup.training.optimizer, contender.optimizer)
        self.guard.after_attach(candidate.site.exit)
        self.record.append(attached(candidate.site, candidate.recipe))
        self.grow(Size(candidate.params, candidate.macs))
        self.emit(
            Attached(
                step=self.tally.step,
                candidate=candidate.name,
                path=path,
                params=candidate.params,
                macs=candidate.macs,
                total_params=self.tally.params,
                total_macs=self.tally.macs,
            )
        )
        return path

    def cost(self, site: Site, recipe: Recipe) -> Size:
        """What a recipe adds to the model at a site."""
        price = cost(recipe, site)
        return Size(price.params, round(price.macs * self.setup.runs.get(site.name, 1.0)))

    def grow(self, added: Size) -> None:
        """Change the size on the books."""
        self.tally.params += added.params
        self.tally.macs += added.macs

    def forget_latest(self) -> dict[str, Any]:
        """Take the latest attachment, and every cut since, off the record and the books; the attachment's record."""
        added = next(event for event in reversed(self.history) if isinstance(event, Attached))
        self.tally.params, self.tally.macs = added.total_params - added.params, added.total_macs - added.macs
        latest = max(i for i, op in enumerate(self.record) if op["op"] == "attach")
        op = self.record[latest]
        del self.record[latest:]
        return op

    def judged(self, name: str, kind: str, verdict: Verdict) -> None:
        """Tell the verdict."""
        self.emit(Judged(step=self.tally.step, candidate=name, kind=kind, **vars(verdict)))

    def has_time(self, steps: int) -> bool:
        """Whether something that takes ``steps`` steps would end before growth closes."""
        last = self.setup.pace.last
        return last is None or self.tally.step + steps <= last

    def state_dict(self) -> dict[str, Any]:
        """Tally, record and history as plain data."""
        return {
            "tally": copy.deepcopy(vars(self.tally)),
            "record": list(self.record),
            "history": msgspec.to_builtins(self.history),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict`; the record is taken, not replayed."""
        self.tally = Tally(**copy.deepcopy(state["tally"]))
        self.record = list(state["record"])
        self.history = msgspec.convert(state["history"], list[AnyEvent])

    def _candidates(self, site: Site) -> list[Candidate]:
        fitting = offers(site, self.setup.recipes)
        sizes = [self.cost(site, recipe) for recipe in fitting]
        return [Candidate(site, r, s.params, s.macs) for r, s in zip(fitting, sizes, strict=True)]

    def _too_large(self, candidate: Candidate) -> bool:
        setup = self.setup
        end = self.size + Size(candidate.params, candidate.macs)
        num_grafts = sum(op["op"] == "attach" for op in self.record)
        return setup.budget.refuses(setup.start, end, num_grafts + 1) is not None


def _last_projection(newborn: Graft) -> set[str]:
    """Names of the body's parameters that have a gradient at birth: it flows to no other behind a zero projection."""
    names, parameters = zip(*newborn.body.named_parameters(), strict=True)
    x = torch.randn(newborn.site.source.batched(2), generator=torch.Generator().manual_seed(0), device="cpu")
    with streams_kept(), torch.enable_grad():
        gradients = torch.autograd.grad(newborn(x).sum(), parameters, allow_unused=True)
    return {
        n for n, gradient in zip(names, gradients, strict=True) if gradient is not None and gradient.any()
    }
