"""A small trainable block beside, across or after modules of a living network. Does not know how it is trained.

A graft is a child of its site's exit module (``<exit>.grafts.<n>``) and is run by a forward hook that finds it through
the module; the host's parameter names, classes and objects stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from esper.errors import SiteError
from esper.recipe import Recipe
from esper.surgery.eager import forget_compiled
from esper.surgery.nested import on_padded
from esper.surgery.site import Site
from esper.surgery.structure import first_input, first_output, with_first_output
from esper.surgery.tap import Tap, add_tap, hooks_of_taps, remove_tap

SHARDING = "torch.distributed.fsdp."


class Graft(nn.Module):
    """A body, the recipe that it was built from, and the site where it reads and writes.

    ``silent`` means that its exit module does without it at present.
    """

    def __init__(self, body: nn.Module, site: Site, recipe: Recipe) -> None:
        super().__init__()
        self.body = body
        self.site = site
        self.recipe = recipe
        self.silent = False
        self.tap = Tap() if site.is_span else None

    def forward(self, x: Tensor) -> Tensor:
        """Body applied to ``x``, in the body's own dtype unless autocast decides."""
        if not torch.is_autocast_enabled(x.device.type):
            x = x.to(next(self.body.parameters()).dtype)
        out: Tensor = self.body(x)
        return out

    @property
    def num_params(self) -> int:
        """Number of trainable values."""
        return sum(p.numel() for p in self.parameters())


class Grafts(nn.ModuleList):
    """The grafts of one exit module, in order of attachment.

    ``exclusive`` means that the module's own path has been cut: its output is that of the grafts alone. Where that path
    is ``awaited`` its parameters have gradients all the same, of zeros. ``muted`` means that nobody would hear the
    grafts at present.
    """

    def __init__(self) -> None:
        super().__init__()
        self.exclusive = False
        self.awaited = False
        self.muted = False
        self.handle: RemovableHandle | None = None


def attach(model: nn.Module, graft: Graft) -> str:
    """Put ``graft`` into the live model and return its path, ``<exit>.grafts.<n>``.

    The body is moved to the device and dtype of the exit module. Raises SiteError where the module cannot
    hold children of ours.
    """
    exit_module = model.get_submodule(graft.site.exit)
    grafts = _grafts_of(exit_module) or _make_grafts(exit_module, graft.site)
    like_host(graft, model)
    graft.train(exit_module.training)
    grafts.append(graft)
    if graft.tap is not None:
        add_tap(model, model.get_submodule(graft.site.entry), graft.tap)
    forget_compiled()
    return f"{graft.site.exit}.grafts.{len(grafts) - 1}".lstrip(".")


def detach(model: nn.Module, graft: Graft) -> None:
    """Take ``graft`` out again; every host tensor stays as it is. Later grafts of the site move up one number."""
    exit_module = model.get_submodule(graft.site.exit)
    grafts = _grafts_of(exit_module)
    if grafts is None or not any(child is graft for child in grafts):
        raise SiteError(f"no such graft at {graft.site.name}")
    del grafts[next(i for i, child in enumerate(grafts) if child is graft)]
    if graft.tap is not None:
        remove_tap(model, model.get_submodule(graft.site.entry), graft.tap)
    if not grafts:
        if grafts.handle is not None:
            grafts.handle.remove()
        del exit_module.grafts
    forget_compiled()


def release(model: nn.Module, exit_name: str) -> list[Graft]:
    """Take every graft of ``exit_name`` out, hooks and all, and return them in order of attachment."""
    grafts = grafts_of(model, exit_name)
    for graft in grafts:
        detach(model, graft)
    return grafts


def cut(model: nn.Module, exit_name: str) -> None:
    """From now on the output of module ``exit_name`` is that of its grafts alone."""
    grafts = _grafts_of(model.get_submodule(exit_name))
    if grafts is None:
        raise SiteError(f"nothing is attached at {exit_name}: there would be no output left")
    grafts.exclusive = True


def await_own_path(model: nn.Module, exit_name: str) -> None:
    """Give the parameters before module ``exit_name`` gradients even when it is cut, for who waits for them."""
    grafts = _grafts_of(model.get_submodule(exit_name))
    if grafts is None:
        raise SiteError(f"nothing is attached at {exit_name}")
    grafts.awaited = True


def all_cuts(model: nn.Module) -> set[str]:
    """Names of the modules whose own path has been cut."""
    return {name for name, _ in model.named_modules() if is_cut(model, name)}


def undo_cuts(model: nn.Module, *, keep: set[str]) -> None:
    """Every module that has been cut, except those to ``keep`` so, has its own path again."""
    for name in all_cuts(model) - keep:
        grafts = _grafts_of(model.get_submodule(name))
        assert grafts is not None
        grafts.exclusive = False


def grafts_of(model: nn.Module, exit_name: str) -> list[Graft]:
    """The grafts attached at module ``exit_name``, in order of attachment."""
    grafts = _grafts_of(model.get_submodule(exit_name))
    return [] if grafts is None else [graft for graft in grafts if isinstance(graft, Graft)]


def is_cut(model: nn.Module, exit_name: str) -> bool:
    """Whether the own path of module ``exit_name`` has been cut."""
    grafts = _grafts_of(model.get_submodule(exit_name))
    return grafts is not None and grafts.exclusive


def hooks_of_users(module: nn.Module) -> set[int]:
    """Numbers of the forward hooks and pre-hooks of ``module`` that are neither ours nor those of sharding."""
    grafts = _grafts_of(module)
    ours = set() if grafts is None or grafts.handle is None else {grafts.handle.id}
    hooks = {**module._forward_hooks, **module._forward_pre_hooks}
    of_sharding = {number for number, hook in hooks.items() if hook.__module__.startswith(SHARDING)}
    return hooks.keys() - ours - of_sharding - hooks_of_taps(module)


def hooks_before_grafts(module: nn.Module) -> bool:
    """Whether forward hooks of users see the output of ``module`` before its grafts have added to it."""
    grafts = _grafts_of(module)
    return (
        grafts is not None
        and grafts.handle is not None
        and next(iter(module._forward_hooks)) != grafts.handle.id
    )


def all_grafts(model: nn.Module) -> list[tuple[str, Graft]]:
    """Every attached graft with its path."""
    return [(name, module) for name, module in model.named_modules() if isinstance(module, Graft)]


def like_host(graft: Graft, model: nn.Module) -> Graft:
    """Move ``graft`` to the device and floating dtype of its exit module (of the model if that has no parameters)."""
    module = model.get_submodule(graft.site.exit)
    for parameter in (*module.parameters(), *model.parameters()):
        if parameter.is_floating_point():
            return graft.to(device=parameter.device, dtype=parameter.dtype)
    return graft


@contextmanager
def switched_on(
    model: nn.Module, grafts: Sequence[Graft], *, exclusive: bool = False, detached: bool = True
) -> Iterator[None]:
    """Let ``grafts``, all at one exit, act on the model's output inside the context without being part of it.

    With ``detached`` no gradient flows through them into the host. With ``exclusive`` the exit's own output, and
    that of grafts already attached there, is replaced instead of added to.
    """
    with ExitStack() as stack:
        for graft in grafts:
            if graft.tap is not None:
                stack.callback(graft.tap.empty)
                stack.callback(graft.tap.beside(model.get_submodule(graft.site.entry)).remove)
        exit_module = model.get_submodule(grafts[0].site.exit)
        attached = _grafts_of(exit_module)
        if attached is not None and exclusive:
            attached.muted = True
            stack.callback(setattr, attached, "muted", False)
        run = partial(_run_beside, tuple(grafts), exclusive, detached)
        stack.callback(exit_module.register_forward_hook(run, with_kwargs=True).remove)
        yield


@contextmanager
def switched_off(graft: Graft) -> Iterator[None]:
    """Inside the context the model does without an attached graft, which must not be all that is left of its exit."""
    graft.silent = True
    try:
        yield
    finally:
        graft.silent = False


def combine(
    output: Any, inputs: Tensor | None, grafts: Sequence[Graft], *, exclusive: bool, detached: bool
) -> Any:
    """``output`` of a module with the outputs of ``grafts`` added (or, when exclusive, put in its place)."""
    z = first_output(output)
    if z is None:
        raise SiteError("a grown module returned no floating tensor; restrict growth with sites=[...]")
    total: Tensor | None = None if exclusive else z
    for graft in grafts:
        x = _read(graft, inputs, z if total is None else total)
        update = on_padded(graft, x.detach() if detached else x, z).to(z.dtype)
        total = update if total is None else total + update
    return output if total is None else with_first_output(output, total)


def _read(graft: Graft, inputs: Tensor | None, current: Tensor) -> Tensor:
    if graft.site.attachment == "after":
        return current
    if graft.tap is not None:
        return graft.tap.take()
    if inputs is None:
        raise SiteError(
            f"{graft.site.exit} was called without a floating tensor; restrict growth with sites=[...]"
        )
    return inputs


def _run_attached(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
    grafts = _grafts_of(module)
    assert grafts is not None
    if grafts.muted:
        return output
    children = [graft for graft in grafts if isinstance(graft, Graft) and not graft.silent]
    found = combine(output, first_input(args, kwargs), children, exclusive=grafts.exclusive, detached=False)
    own = first_output(output)
    if not (grafts.exclusive and grafts.awaited) or own is None or not own.requires_grad:
        return found
    heard: Tensor = _Unheard.apply(first_output(found), own)  # type: ignore[no-untyped-call]
    return with_first_output(found, heard)


class _Unheard(torch.autograd.Function):
    """The first of two tensors of one shape; the other one has a gradient of zeros."""

    @staticmethod
    def forward(_: Any, heard: Tensor, own: Tensor) -> Tensor:  # noqa: ARG004
        """``heard``, as a tensor of its own."""
        return heard.view_as(heard)

    @staticmethod
    def backward(_: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        """Of both."""
        (gradient,) = gradients
        return gradient, torch.zeros_like(gradient)


def _run_beside(
    grafts: tuple[Graft, ...],
    exclusive: bool,
    detached: bool,
    module: nn.Module,  # noqa: ARG001 - the signature is torch's
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    output: Any,
) -> Any:
    return combine(output, first_input(args, kwargs), grafts, exclusive=exclusive, detached=detached)


def _grafts_of(module: nn.Module) -> Grafts | None:
    child = module._modules.get("grafts")
    return child if isinstance(child, Grafts) else None


def _make_grafts(module: nn.Module, site: Site) -> Grafts:
    if isinstance(module, (nn.Sequential, nn.ModuleList)) or "grafts" in dir(module):
        raise SiteError(f"{site.exit or 'the root module'} cannot hold a child named 'grafts'")
    grafts = Grafts()
    module.add_module("grafts", grafts)
    grafts.handle = module.register_forward_hook(_run_attached, with_kwargs=True)
    return grafts
