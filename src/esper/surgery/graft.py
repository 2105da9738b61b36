"""A small trainable block beside, across or after modules of a living network. Does not know how it is trained.

A graft is a child of its site's exit module (``<exit>.grafts.<n>``) and is run by a forward hook that finds it through
the module; the host's parameter names, classes and objects stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from esper.errors import SiteError
from esper.recipe import Recipe
from esper.surgery.nested import on_padded
from esper.surgery.site import Site
from esper.surgery.structure import first_input, first_output, with_first_output


class Tap:
    """Carries the input of a span's entry to the graft at its exit, within one forward pass.

    Copies are empty: a tensor in flight belongs to the pass that made it.
    """

    def __init__(self) -> None:
        self.value: Tensor | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        fresh = type(self)()
        memo[id(self)] = fresh
        return fresh

    def __getstate__(self) -> dict[str, Any]:
        return {"value": None}

    def take(self) -> Tensor:
        """The entry's input; the tap is empty afterwards. Raises SiteError when the entry was not called."""
        value, self.value = self.value, None
        if value is None:
            raise SiteError(
                "the exit of a span was called, or computed again under checkpointing, without its entry; "
                "restrict growth with sites=[...]"
            )
        return value


class Graft(nn.Module):
    """A body, the recipe that it was built from, and the site where it reads and writes."""

    def __init__(self, body: nn.Module, site: Site, recipe: Recipe) -> None:
        super().__init__()
        self.body = body
        self.site = site
        self.recipe = recipe
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

    ``exclusive`` means that the module's own path has been cut: its output is that of the grafts alone.
    """

    def __init__(self) -> None:
        super().__init__()
        self.exclusive = False
        self.handle: RemovableHandle | None = None


class Taps:
    """The taps that read the input of one entry module."""

    def __init__(self) -> None:
        self.taps: list[Tap] = []
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
        _add_tap(model.get_submodule(graft.site.entry), graft.tap)
    return f"{graft.site.exit}.grafts.{len(grafts) - 1}".lstrip(".")


def detach(model: nn.Module, graft: Graft) -> None:
    """Take ``graft`` out again; every host tensor stays as it is. Later grafts of the site move up one number."""
    exit_module = model.get_submodule(graft.site.exit)
    grafts = _grafts_of(exit_module)
    if grafts is None or not any(child is graft for child in grafts):
        raise SiteError(f"no such graft at {graft.site.name}")
    del grafts[next(i for i, child in enumerate(grafts) if child is graft)]
    if graft.tap is not None:
        _remove_tap(model.get_submodule(graft.site.entry), graft.tap)
    if not grafts:
        if grafts.handle is not None:
            grafts.handle.remove()
        del exit_module.grafts


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


def grafts_of(model: nn.Module, exit_name: str) -> list[Graft]:
    """The grafts attached at module ``exit_name``, in order of attachment."""
    grafts = _grafts_of(model.get_submodule(exit_name))
    return [] if grafts is None else [graft for graft in grafts if isinstance(graft, Graft)]


def is_cut(model: nn.Module, exit_name: str) -> bool:
    """Whether the own path of module ``exit_name`` has been cut."""
    grafts = _grafts_of(model.get_submodule(exit_name))
    return grafts is not None and grafts.exclusive


def hooks_of_users(module: nn.Module) -> set[int]:
    """Numbers of the forward hooks and pre-hooks of ``module`` that are not ours."""
    grafts, taps = _grafts_of(module), module.__dict__.get("graft_taps")
    ours = {own.handle.id for own in (grafts, taps) if own is not None and own.handle is not None}
    return {*module._forward_hooks, *module._forward_pre_hooks} - ours


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
                entry = model.get_submodule(graft.site.entry)
                hook = partial(_fill, [graft.tap])
                stack.callback(entry.register_forward_pre_hook(hook, with_kwargs=True).remove)
        exit_module = model.get_submodule(grafts[0].site.exit)
        run = partial(_run_beside, tuple(grafts), exclusive, detached)
        stack.callback(exit_module.register_forward_hook(run, with_kwargs=True).remove)
        yield


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
    children = [graft for graft in grafts if isinstance(graft, Graft)]
    return combine(output, first_input(args, kwargs), children, exclusive=grafts.exclusive, detached=False)


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


def _run_taps(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    taps = module.__dict__["graft_taps"]
    _fill(taps.taps, module, args, kwargs)


def _fill(taps: list[Tap], module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:  # noqa: ARG001
    x = first_input(args, kwargs)
    for tap in taps:
        tap.value = x


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


def _add_tap(module: nn.Module, tap: Tap) -> None:
    taps = module.__dict__.get("graft_taps")
    if taps is None:
        taps = Taps()
        taps.handle = module.register_forward_pre_hook(_run_taps, with_kwargs=True)
        module.__dict__["graft_taps"] = taps
    taps.taps.append(tap)


def _remove_tap(module: nn.Module, tap: Tap) -> None:
    taps: Taps = module.__dict__["graft_taps"]
    taps.taps = [other for other in taps.taps if other is not tap]
    if not taps.taps:
        if taps.handle is not None:
            taps.handle.remove()
        del module.__dict__["graft_taps"]
