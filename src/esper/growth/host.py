"""The user's model and how it is asked: always isolated, always leaving it as it was. Decides nothing."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge

from esper.errors import ClosureError, ConfigurationError, EvaluateError
from esper.growth.bystanders import Bystanders
from esper.growth.held_out import HeldOut
from esper.growth.optimizers import put_back_on_error
from esper.growth.training import Training
from esper.surgery.capture import MAX_PASSES, Capture, Pair
from esper.surgery.dependence import ancestors_of, edges_of, leaves_among, reachable_from
from esper.surgery.eager import eager
from esper.surgery.graft import Graft, switched_on
from esper.surgery.isolation import isolated, unchanged
from esper.surgery.site import Site
from esper.surgery.trace import trace

REENTRANT = (
    "the model checkpoints activations in the reentrant way, which lets nobody ask for gradients of chosen parameters: "
    "checkpoint(..., use_reentrant=False) does"
)

Closure = Callable[[], Tensor]
Evaluate = Callable[[nn.Module], Tensor]
Losses = NDArray[np.float64]
Pairs = dict[str, list[Pair]]


class Host:
    """A model with its held-out evaluation. Nothing that is asked of it moves a weight, a buffer or a random stream."""

    def __init__(self, training: Training, evaluate: Evaluate) -> None:
        self.model = training.model
        self.differentiable = True
        self._training = training
        self._others = Bystanders(training.model)
        self._num_examples = 0
        self._pooled = False
        self._evaluate = evaluate
        self._closure_checked = False
        self._written: set[str] = set()  # sites whose input the model itself writes into

    def evaluate(self, model: nn.Module) -> None:
        """Run the held-out evaluation on ``model`` (this one or a copy), isolated, for whoever hooked into it."""
        with self._aside(model), self._others.sought(model), torch.enable_grad():
            for losses in self._batches(model):
                del losses  # and its graph with it, before that of the next batch is made

    def glimpse(self, model: nn.Module) -> None:
        """As `evaluate`, of the first batch only."""
        with self._aside(model), self._others.sought(model), torch.enable_grad():
            next(iter(self._batches(model)))

    def anywhere(self, found: bool) -> bool:
        """Whether something was found by this process, or by another that trains the same model."""
        return any(self._training.ranks.gather(found))

    def examine(self) -> Losses:
        """First look at ``evaluate``: finds out whether it gives gradients, and returns its losses, shape ``(N,)``.

        Raises EvaluateError when it does not return one loss per example, ConfigurationError when a reentrant
        checkpoint is in the way already.
        """
        with self._aside(self.model), self._others.sought(self.model), torch.enable_grad():
            batches = iter(self._batches(self.model))
            first = next(batches)
            found = [checked(first)]
            self.differentiable = first.requires_grad
            _check_checkpoints(first)
            del first
            with torch.no_grad():
                found += [checked(losses) for losses in batches]
        self._num_examples = sum(map(len, found))
        everyones = self._training.ranks.gather((np.concatenate(found), self.differentiable))
        self.differentiable = all(differentiable for _, differentiable in everyones)
        self._pooled = _are_parts([losses for losses, _ in everyones])
        return self._of_all(np.concatenate(found))

    def _of_all(self, losses: Losses) -> Losses:
        """Those of all ranks, one after the other; where every rank holds the same examples, those of rank 0."""
        ranks = self._training.ranks
        return np.concatenate(ranks.gather(losses)) if self._pooled else ranks.decided(lambda: losses)

    def losses(self, grafts: Sequence[Graft] = (), *, exclusive: bool = False) -> Losses:
        """Held-out loss of every example, with ``grafts`` switched on, shape ``(N,)``. Raises EvaluateError."""
        with self._aside(self.model), self._others.isolated(), torch.no_grad():
            if not grafts:
                return self._of_all(self._counted(self._evaluate(self.model)))
            with (
                eager.held(),
                switched_on(self.model, grafts, exclusive=exclusive),
                modes(grafts, training=False),
            ):
                return self._of_all(self._counted(self._evaluate(self.model)))

    def show(self, sites: Sequence[Site], to: Callable[[str, Pair], None]) -> None:
        """Hand on the per-example held-out gradients at ``sites`` of the first ``MAX_PASSES`` batches, one by one.

        There are none where ``evaluate`` gives no gradients. Inputs are copied only at sites where the model was seen
        to write into them: there the first time takes a second look.
        """
        shown = {site.name for site in sites} - self._written
        found = self._training.ranks.gather(sorted(self._show(sites, to, borrow=shown)))
        spoilt = {name for names in found for name in names}
        self._written |= spoilt
        if spoilt:
            self._show([site for site in sites if site.name in spoilt], to, borrow=())

    def _show(
        self, sites: Sequence[Site], to: Callable[[str, Pair], None], *, borrow: Collection[str]
    ) -> set[str]:
        """Names of the sites of which nothing could be shown, as what they read is not what it was."""
        shown: set[str] = set()

        def hand_on(site: str, pair: Pair) -> None:
            shown.add(site)
            to(site, pair)

        capture = Capture(self.model, sites, to=hand_on, borrow=borrow)
        with self._aside(self.model), self._others.isolated(), torch.enable_grad():
            capture.arm()
            try:
                for losses in islice(self._batches(self.model), MAX_PASSES):
                    self._backward(losses, capture.awaited())
                    del losses  # and its graph, before the next is made
                    capture.awaited()  # nothing waits for what checkpoints have computed again
            finally:
                capture.disarm()
        return capture.spoilt - shown

    def listen(self, closure: Closure, watching: AbstractContextManager[object]) -> None:
        """Run ``closure`` in eval mode inside ``watching``. Raises ClosureError when it changes the model."""
        if not self._closure_checked:
            self._check(closure)
        quiet = isolated(self.model, eval_mode=True)
        with quiet, self._others.isolated(), eager.held(), torch.enable_grad(), watching:
            closure()

    def macs(self) -> int:
        """Multiply-adds per example of one held-out batch, without those of `idle_macs`."""
        with self._aside(self.model):
            seen = trace(self.model, partial(self.glimpse, self.model))
        return seen.macs - seen.idle_macs

    def idle_macs(self) -> int:
        """Multiply-adds per example, of one held-out batch, that nothing the model returns depends on."""
        with self._aside(self.model):
            return trace(self.model, partial(self.glimpse, self.model)).idle_macs

    def unused(self) -> set[str]:
        """Names of trainable parameters that the held-out losses do not depend on; none without gradients."""
        if not self.differentiable:
            return set()
        names, parameters = zip(
            *((n, p) for n, p in self.model.named_parameters() if p.requires_grad), strict=True
        )
        with self._aside(self.model), self._others.isolated(), torch.enable_grad():
            losses = next(iter(self._batches(self.model)))
            found = gradients_of(losses.sum(), self._training.ranks.read(parameters))
        return {name for name, gradient in zip(names, found, strict=True) if gradient is None}

    def gradients(self, closure: Closure, grafts: Sequence[Graft], *, exclusive: bool = False) -> float:
        """One pass of ``closure`` with ``grafts`` on and their input detached; puts gradients into their ``.grad``.

        Under a gradient scaler the pass back is scaled as the user's own, and where that overflows there are no
        gradients: the step is to be left out. Returns the loss, unscaled.
        Raises ClosureError when the closure changes the model or returns no scalar loss.
        """
        if not self._closure_checked:
            self._check(closure)
        parameters = [p for graft in grafts for p in graft.parameters()]
        grafted = switched_on(self.model, grafts, exclusive=exclusive)
        ranks = self._training.ranks
        with (
            ranks.apart(),
            isolated(self.model),
            self._others.isolated(),
            eager.held(),
            torch.enable_grad(),
            grafted,
        ):
            loss = scalar(closure())
            scale = self._training.scale
            scaled = loss if scale == 1.0 else loss * scale
            gradients = gradients_of(scaled, parameters)
        if all(gradient is None for gradient in gradients):
            if any(
                node.name() == "CheckpointFunctionBackward" for node, _ in reachable_from(edges_of([loss]))
            ):
                raise ConfigurationError(REENTRANT)
            raise ClosureError(
                f"the closure's loss does not depend on {grafts[0].site.exit}: repeat the forward pass of the model "
                "that is grown, lambda: loss_fn(model(inputs), targets)"
            )
        loss = loss.detach().clone()
        ranks.mean([loss, *(gradient for gradient in gradients if gradient is not None)])
        for parameter, gradient in zip(parameters, unscaled(gradients, scale), strict=True):
            parameter.grad = gradient
        return float(loss)

    @contextmanager
    def _aside(self, model: nn.Module) -> Iterator[None]:
        """For held-out passes of ``model``, this one or a copy."""
        with self._training.ranks.apart(), isolated(model, eval_mode=True):
            yield

    def _counted(self, losses: Tensor) -> Losses:
        found = checked(losses)
        if len(found) != self._num_examples:
            raise EvaluateError(
                f"evaluate returned {self._num_examples} losses at first and {len(found)} now: a growth is judged by "
                "pairs, so it must go through the same examples in the same order every time"
            )
        return found

    def _check(self, closure: Closure) -> None:
        with (
            self._training.ranks.apart(),  # outermost: the wrapper, isolated inside, goes back to what it was there
            put_back_on_error(self._training.optimizer),
            isolated(self.model),
            self._others.sought(self.model),
            unchanged(self.model),
            self._training.ranks.apart(),  # innermost, too: what a sharded model gathered is no change
            torch.enable_grad(),
        ):
            scalar(closure())
        self._closure_checked = True

    def _batches(self, model: nn.Module) -> Iterable[Tensor]:
        """The held-out losses batch by batch where that is possible, each with a graph of its own."""
        if isinstance(self._evaluate, HeldOut):
            return self._evaluate.batches(model)
        return [self._evaluate(model)]

    def _backward(self, losses: Tensor, awaited: Sequence[GradientEdge]) -> None:
        """Back to where gradients are awaited, and no further: those of the parameters would be for nothing."""
        if not losses.requires_grad or not awaited:
            return
        if self._training.ranks.size == 1:
            gradients_of(losses.sum(), _ends(awaited))
            return
        # A sharded model waits for the whole pass. Those in the graph: what it gathers is not what it shows.
        gradients_of(losses.sum(), leaves_among(reachable_from(edges_of([losses]))))


def _ends(edges: Iterable[GradientEdge]) -> list[GradientEdge]:
    """Those that were not computed from another one."""
    known = {(edge.node, edge.output_nr): edge for edge in edges}
    behind = ancestors_of([{place} for place in known])
    return [edge for own, edge in enumerate(known.values()) if behind[own] == 1 << own]


def _are_parts(losses: Sequence[Losses]) -> bool:
    """Whether the ranks hold out different examples: the same ones have the same losses under the same model."""
    first = losses[0]
    return any(len(own) != len(first) or not np.allclose(own, first, rtol=1e-4, atol=1e-6) for own in losses)


def _check_checkpoints(value: Tensor) -> None:
    if any(node.name() == "CheckpointFunctionBackward" for node, _ in reachable_from(edges_of([value]))):
        raise ConfigurationError(REENTRANT)


def gradients_of(
    value: Tensor, parameters: Sequence[Tensor] | Sequence[GradientEdge]
) -> tuple[Tensor | None, ...]:
    """As ``torch.autograd.grad``. Raises ConfigurationError when a reentrant checkpoint is in the way."""
    try:
        return torch.autograd.grad(value, parameters, allow_unused=True)
    except RuntimeError as error:
        if "use_reentrant" not in str(error):
            raise
        raise ConfigurationError(REENTRANT) from error


def unscaled(gradients: Sequence[Tensor | None], scale: float) -> tuple[Tensor | None, ...]:
    """Divided in float32 at least, in the dtype that they had; all ``None`` when the scale made one overflow."""
    if scale == 1.0:
        return tuple(gradients)
    if not all(bool(torch.isfinite(g).all()) for g in gradients if g is not None):
        return (None,) * len(gradients)
    return tuple(
        None if g is None else (g.to(torch.promote_types(g.dtype, torch.float32)) / scale).to(g.dtype)
        for g in gradients
    )


class modes:  # noqa: N801 - reads as a verb in a with statement
    """Puts grafts that are not yet part of a model into train or eval mode, and back."""

    def __init__(self, grafts: Sequence[Graft], *, training: bool) -> None:
        self._grafts = [(graft, graft.training) for graft in grafts]
        self._training = training

    def __enter__(self) -> None:
        for graft, _ in self._grafts:
            graft.train(self._training)

    def __exit__(self, *_: object) -> None:
        for graft, training in self._grafts:
            graft.train(training)


def no_closure() -> Tensor:
    """Stands for the closure before the first step."""
    raise ClosureError("no closure has been given yet")


def checked(losses: Tensor) -> Losses:
    """``losses`` as float64 numbers, shape ``(N,)``. Raises EvaluateError for a scalar or another shape."""
    if not isinstance(losses, Tensor) or losses.dim() != 1:
        found = f"shape {tuple(losses.shape)}" if isinstance(losses, Tensor) else type(losses).__name__
        raise EvaluateError(
            f"evaluate(model) returned {found}; a tensor with one loss per held-out example, shape (N,), is needed: "
            "a growth is judged by pairs of losses. Use esper.held_out(loader, loss), or held_out(loader, "
            "per_example=lambda model, batch: ...) with reduction='none'"
        )
    return losses.detach().cpu().double().numpy()


def scalar(loss: Tensor) -> Tensor:
    """``loss`` itself. Raises ClosureError when it is not a scalar with a gradient."""
    if not isinstance(loss, Tensor) or loss.numel() != 1 or not loss.requires_grad:
        raise ClosureError(
            "the closure must return the scalar loss of the batch just trained on, with its graph: "
            "lambda: loss_fn(model(inputs), targets)"
        )
    return loss.reshape(())
