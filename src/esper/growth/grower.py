"""One growth step in any training loop. Knows when; what and where are the controller's, whether is the judge's.

The way of one growth, and the laws that hold on it, stand in ``docs/how-growth-works.md``.
"""

from __future__ import annotations

import gc
import warnings
import weakref
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from esper.controller.advised import Advised
from esper.controller.judge import Judge
from esper.controller.rules import Controller, Rules
from esper.errors import CheckpointError, ClosureError, ConfigurationError
from esper.events import AnyEvent, Folded, Recompiled, RolledBack
from esper.growth.agreed import Agreed
from esper.growth.budget import Budget, Size
from esper.growth.compilations import Compilations
from esper.growth.enlarging import enlarge_layers, look_again
from esper.growth.episodes import Places
from esper.growth.examination import check_recipes, check_types, explore
from esper.growth.host import Closure, Evaluate, Host, no_closure
from esper.growth.last_call import LastCall, LossOf
from esper.growth.merging import merge_grafts
from esper.growth.optimizers import check_optimizer
from esper.growth.phases import Over, Phase, Rest, begin, check_offered, resume
from esper.growth.phases.course import after_refusal
from esper.growth.ranks import Ranks
from esper.growth.record import MELTING, folded, recipe_of, replay, site_of
from esper.growth.remembering import Remembering
from esper.growth.run_memory import RunMemory
from esper.growth.training import Stateful, Training, inner
from esper.growth.work import Joining, Prunable, Setup, Work
from esper.growth.wrappers import ranks_of
from esper.memory.memory import Memory
from esper.recipe import Recipe
from esper.surgery.fold import fold, observe
from esper.surgery.graft import all_grafts, grafts_of
from esper.surgery.site import Site
from esper.surgery.sites import SiteMap

FORMAT = 1
_growers: weakref.WeakSet[Grower] = weakref.WeakSet()


class Grower:
    """Grows ``model`` while it trains; call `step` once after every optimizer step.

    The model is changed in place and only by grafts that the judge has accepted; until then every output, gradient,
    parameter name and random stream is that of a run without Esper, to the bit.

    Args:
        model: any module. Host parameters keep their names while training; grafts appear as ``<site>.grafts.<n>.*``.
            Of a ``DistributedDataParallel`` the module inside is grown, alike on all ranks, and under ``fully_shard``
            the model itself; every rank then makes a Grower and calls `step` as often as the others.
        optimizer: one of ``torch.optim`` that trains ``model``; LBFGS and SparseAdam are refused.
        evaluate: ``(model) -> losses``, shape ``(N,)``, one loss per held-out example, differentiable when gradients
            are on. See `esper.held_out`, which needs the memory of one batch; any other function needs that of all it
            evaluates at once.
        total_steps: optimizer steps of the whole run; growth closes at 60 % of it. Without it growth ends by refusals
            and budget alone.
        budget: hard limits of size.
        scheduler: learning rate scheduler, saved and put back by the guard.
        scaler: ``torch.amp.GradScaler``, likewise.
        averaged: averaged copies of the model (EMA, SWA); they receive every graft too.
        sites: names or globs of the sites to grow, of those that `sites` lists; all by default.
        recipes: what to graft; the catalogue's recipes by default.
        controller: where, when and what to try; `esper.Rules` by default.
        judge: what must be shown before a graft stays.
        memory: where every decision is written as an episode, and what is asked before a trial: those that it knows
            to be refused in such situations are spared. A run that goes on asks it anew for what it has not read.
        loss: ``(output) -> loss``, the scalar training loss of what ``model`` returned, for loops without a closure:
            `step` then repeats the latest call of ``model`` that had gradients.
        prune: what may be taken out again after growth, where held-out data show no use of it: ``"grafts"``; with
            ``"all"`` also units, heads and residual branches of the model itself; or ``"nothing"``.
        join: when widenings become units of the model's own layers: at ``"finish"``, or between ``"rounds"``, where no
            other graft stands in the way: the next round then sees one larger network, and can widen what reads the
            new units, too. Parameters keep their names but are other objects afterwards, so a loop that holds on to
            a list of them must take it anew; not for a model that is wrapped for several processes.
        seed: of growth's own random generator; the global streams are never touched.

    Raises:
        ConfigurationError: another Grower that is not finished grows this model, or adds to this optimizer.
        RankError: (here and at every step) another rank has failed, is lost, or holds other weights.
        EvaluateError: ``evaluate`` returns a scalar, too few losses, or losses that are not finite.
        OptimizerError: an optimizer that cannot take new parameters.
        RecipeError: a recipe that is dead or explodes at birth, or none that fits any site.
        SiteError: no module can be grown, or ``sites`` matches none.
    """

    _compilations: Compilations | None = None

    def __init__(  # noqa: PLR0913 - the contract of DESIGN: everything after optimizer is keyword-only
        self,
        model: nn.Module,
        optimizer: Optimizer,
        *,
        evaluate: Evaluate,
        total_steps: int | None = None,
        budget: Budget = Budget(),  # noqa: B008 - frozen
        scheduler: Stateful | None = None,
        scaler: Stateful | None = None,
        averaged: Iterable[nn.Module] = (),
        sites: Sequence[str] | None = None,
        recipes: Sequence[Recipe] | None = None,
        controller: Controller | None = None,
        judge: Judge = Judge(),  # noqa: B008 - frozen
        memory: Memory | RunMemory | None = None,
        loss: LossOf | None = None,
        prune: Prunable = "grafts",
        join: Joining = "finish",
        seed: int = 0,
    ) -> None:
        check_types(evaluate, recipes, total_steps)
        model, ranks = ranks_of(model)
        check_optimizer(optimizer, model)
        _check_alone(model, optimizer)
        companions = tuple(c for c in (scheduler, scaler) if c is not None)
        training = Training(model, optimizer, companions, tuple(averaged), ranks)
        host = Host(training, evaluate)
        with ranks.together():
            self._sites = explore(host, judge)
        chosen = (self._sites if sites is None else self._sites.select(sites)).sites
        check_recipes(recipes, chosen)
        self._remembering = self._remember(memory) if memory is not None and ranks.leads else None
        rules = self._advised(controller if controller is not None else Rules(), ranks)
        setup = Setup(
            training=training,
            host=host,
            sites=chosen,
            runs=self._sites.runs,
            droppable=self._sites.droppable,
            start=Size(self._sites.params, self._sites.macs),
            pace=rules.pace(total_steps),
            controller=rules,
            judge=judge,
            budget=budget,
            recipes=None if recipes is None else tuple(recipes),
            seed=seed,
            prune=prune,
            parts=self._sites.parts,
            only=None if sites is None else [sites] if isinstance(sites, str) else list(sites),
            join=join,
        )
        self._work = Work(setup)
        if self._remembering is not None:
            self._work.listeners.append(self._remembering.hear)
        self._phase: Phase = Rest(self._work, setup.pace.start)
        self._folded = False
        self._loss, self._last_call = loss, LastCall(model)
        _growers.add(self)

    def __repr__(self) -> str:
        """What is grown, how large it is, and what growth is doing."""
        kept = len(all_grafts(self._work.setup.host.model))
        name, size, step = type(self._work.setup.host.model).__name__, self.size, self._work.tally.step
        return (
            f"<Grower of {name}: {size.params:,} parameters, {kept} grafts, {self.phase!r} at step {step:,}>"
        )

    @property
    def history(self) -> tuple[AnyEvent, ...]:
        """Every decision so far with its evidence, oldest first."""
        return tuple(self._work.history)

    @property
    def record(self) -> list[dict[str, Any]]:
        """What has been done to the model, as plain data: attachments, cuts, prunings, folding, in order."""
        return list(self._work.record)

    @property
    def finished(self) -> bool:
        """Whether no more growth will be tried."""
        return isinstance(self._phase, Over)

    @property
    def phase(self) -> str:
        """What growth is doing: ``rest``, ``sense``, ``learn``, ``try``, ``trim``, ``prune`` or ``over``."""
        return self._phase.name

    @property
    def size(self) -> Size:
        """Parameters and multiply-adds of the model as it is now."""
        return self._work.size

    def sites(self) -> SiteMap:
        """Every module with its share of the parameters, and whether (or why not) it can grow; prints as a table.

        As it was when the grower was made or, where widenings have been joined between rounds, when that was done last.
        """
        return self._work.sites or self._sites

    def on_event(self, listener: Callable[[AnyEvent], object]) -> None:
        """Call ``listener(event)`` at every event from now on."""
        self._work.listeners.append(listener)

    def step(self, closure: Callable[[], Tensor] | None = None) -> None:
        """Call once after every *optimizer* step, like a scheduler.

        Args:
            closure: repeats forward and loss of the batch just trained on (with gradient accumulation, of the last
                micro-batch) and returns the scalar loss; it is called during trials only, isolated. Not needed when
                Grower was given ``loss``: then the latest call of the model is repeated.

        Raises:
            ClosureError: there is none, it changes the model, or it does not return a scalar loss with a gradient.
            EvaluateError: ``evaluate`` stopped returning one loss per example.
        """
        closure = closure if closure is not None else self._repetition()
        self._last_call.stop()
        if not callable(closure):
            raise ClosureError(
                "step() needs a closure that repeats forward and loss of this batch: "
                "grower.step(lambda: loss_fn(model(inputs), targets)); or, where the model returns its own loss, say "
                "so once: Grower(..., loss=lambda output: output.loss)"
            )
        self._work.tally.step += 1
        self._tell_compilations()
        changes = len(self._work.record)
        with self._work.setup.training.ranks.together():
            self._stand_guard()
            self._work.closure = closure
            following = self._phase.step()
            self._work.closure = no_closure  # it holds a batch
            if following is not None:
                self._phase = begin(self._work, following)
        if len(self._work.record) != changes:
            self._compilations = Compilations()
        self._listen()

    def finish(self) -> nn.Module:
        """End growth, fold every graft into plain PyTorch and return the same model; a second call does nothing.

        Of a ``DistributedDataParallel`` it is the module inside: layers have become larger, so wrap it anew to go on.
        Of a model under ``fully_shard`` the layers that have grown are gathered, folded on every rank and sharded
        again as they were; the optimizer goes on with them. Raises ConfigurationError where tensor parallelism has cut
        them, too.
        """
        if self._folded:
            return self._work.setup.training.model
        self._phase.stop()
        self._work.guard.dismiss()
        self._phase = Over(self._work)
        self._last_call.stop()
        model = self._work.setup.training.model
        num_grafts = len(all_grafts(model))
        merge_grafts(self._work)
        enlarge_layers(self._work)
        forms = observe(model, partial(self._work.setup.host.evaluate, model)) if all_grafts(model) else {}
        training = self._work.setup.training
        with training.ranks.whole(training.optimizer):
            for module in (model, *map(inner, training.averaged)):
                fold(module, forms)
        self._work.record.append(folded(forms))
        self._folded = True
        total = sum(p.numel() for p in model.parameters())
        self._work.emit(Folded(step=self._work.tally.step, total_params=total, num_grafts=num_grafts))
        return model

    def state_dict(self) -> dict[str, Any]:
        """All that growth needs to continue, in flight or at rest, as plain data and tensors.

        Save it beside the state dicts of model, optimizer and scheduler. See `load_state_dict`.
        """
        state = {
            "format": FORMAT,
            "sites": [_features(site) for site in self._sites.offers],
            "work": self._work.state_dict(),
            "phase": {"name": self._phase.name, **self._phase.state_dict()},
            "guard": self._work.guard.state_dict(),
        }
        return state if self._remembering is None else {**state, "run": self._remembering.memory.run}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict`, with the fresh model and optimizer that this grower was made with.

        Grafts are rebuilt and their parameters join the optimizer; *then* load the state dicts of model, optimizer and
        scheduler. Raises CheckpointError, before anything is changed, when the state is of another format or another
        architecture, or in the midst of trying what this grower does not offer.
        """
        self._check(state)
        before = self._work.state_dict()
        self._work.load_state_dict(state["work"])
        try:
            check_offered(self._work, state["phase"])
        except CheckpointError:
            self._work.load_state_dict(before)
            raise
        self._phase.stop()
        if self._remembering is not None:
            self._remembering.memory.run = state.get("run", self._remembering.memory.run)
        record = state["work"]["record"]
        self._replay(record, state["guard"])
        self._phase = resume(self._work, state["phase"])
        self._work.load_state_dict(state["work"])
        self._folded = any(op["op"] == "fold" for op in record)
        self._listen()

    def _repetition(self) -> Closure | None:
        return None if self._loss is None else self._last_call.take(self._loss)

    def _tell_compilations(self) -> None:
        """What torch has compiled since the network changed in the step before."""
        seen, self._compilations = self._compilations, None
        if seen is None:
            return
        seen.stop()
        if seen.count:
            step = self._work.tally.step
            self._work.emit(Recompiled(step=step, num_graphs=seen.count, seconds=seen.seconds))

    def _listen(self) -> None:
        if self._phase.repeats and self._loss is not None:
            self._last_call.listen()
        else:
            self._last_call.stop()

    def _advised(self, rules: Controller, ranks: Ranks) -> Controller:
        advised = rules if self._remembering is None else Advised(rules, self._remembering)
        return advised if ranks.size == 1 else Agreed(advised, ranks)

    def _remember(self, memory: Memory | RunMemory) -> Remembering:
        return Remembering(
            memory if isinstance(memory, RunMemory) else RunMemory(memory),
            lambda: Places.of(self._work.setup.sites),
            history=lambda: self._work.history,
            tell=lambda event: self._work.emit(event),
        )

    def _check(self, state: dict[str, Any]) -> None:
        found = state.get("format")
        if isinstance(found, int) and found > FORMAT:
            raise CheckpointError(
                f"growth state of format {found}, this esper reads {FORMAT}: install a newer esper"
            )
        if found != FORMAT:
            raise CheckpointError("this is no growth state: pass what grower.state_dict() returned")
        if self._work.record:
            raise CheckpointError("this model has grown already: load into a fresh instance")
        own = [_features(site) for site in self._sites.offers]
        if own != state["sites"]:
            other = next(
                (site for site in own + state["sites"] if site not in own or site not in state["sites"]), own
            )
            raise CheckpointError(
                f"the growth state was made with another architecture ({other} is in one of the two only): "
                "build the model with the arguments that it was made with"
            )

    def _replay(self, record: list[dict[str, Any]], guard: dict[str, Any] | None) -> None:
        training = self._work.setup.training
        watched = max((i for i, op in enumerate(record) if op["op"] == "attach"), default=-1)
        for index, op in enumerate(record):
            if guard is not None and index == watched:
                self._work.guard.load_before_attach(guard)
            for averaged in training.averaged:
                replay(inner(averaged), [op])
            self._redo(op)
            if op["op"] == "widen" and not any(later["op"] == "fold" for later in record[index : index + 2]):
                look_again(self._work)
        if guard is not None:
            self._work.guard.after_attach(record[watched]["exit"])

    def _redo(self, op: dict[str, Any]) -> None:
        training = self._work.setup.training
        with training.ranks.whole(training.optimizer) if op["op"] in MELTING else nullcontext():
            replay(training.model, [op], training.optimizer)
        if op["op"] == "attach":
            training.ranks.join(grafts_of(training.model, op["exit"])[-1], training.optimizer)

    def _stand_guard(self) -> None:
        work = self._work
        since = work.guard.since
        reason = work.guard.trouble(work.tally.step)
        if reason is None or since is None:
            return
        self._phase.stop()
        work.guard.undo()
        op = work.forget_latest()
        candidate = f"{site_of(op).name} {recipe_of(op)}"
        work.tally.refusals[candidate] = work.tally.refusals.get(candidate, 0) + 1
        work.emit(RolledBack(step=work.tally.step, to_step=since, path=op["exit"], reason=reason))
        warnings.warn(f"growth undone: {reason}; the steps since {since} are lost", stacklevel=3)
        self._phase = begin(work, after_refusal(work))


def _check_alone(model: nn.Module, optimizer: Optimizer) -> None:
    """Two that put grafts into one model, or parameters into one optimizer, would undo each other's work."""
    if not _rival(model, optimizer):
        return
    gc.collect()  # one that nobody holds any more may still be waiting for it
    if shared := _rival(model, optimizer):
        raise ConfigurationError(
            f"another Grower, not finished yet, grows this {shared}: call its finish() first, or delete it; "
            "two models that train together need an optimizer each"
        )


def _rival(model: nn.Module, optimizer: Optimizer) -> str:
    """What an unfinished Grower of this process shares with the two; empty when none shares anything."""
    for other in list(_growers):
        training = other._work.setup.training
        if not other.finished and (training.model is model or training.optimizer is optimizer):
            return "model" if training.model is model else "optimizer"
    return ""


def _features(site: Site) -> str:
    """A site without its lengths, which may differ from batch to batch."""
    source, target = site.source, site.target
    block = "" if site.block is None else f", {site.block}"
    return f"{site.name}: {source.kind} {source.width} to {target.kind} {target.width}{block}"
