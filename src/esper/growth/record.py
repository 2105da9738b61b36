"""What has been done to a model, as plain data, and how to do it again to a fresh one. Does not know why."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from torch import nn

from esper.blueprints.catalogue import build
from esper.errors import CheckpointError, SiteError
from esper.growth.joining import enlarge
from esper.growth.optimizers import assign, dismiss, join
from esper.growth.slicing import shrink_layers
from esper.growth.training import inner
from esper.recipe import Recipe
from esper.surgery.block import Block
from esper.surgery.bypass import bypass
from esper.surgery.fold import Form, fold
from esper.surgery.graft import Graft, attach, cut, detach, grafts_of, like_host
from esper.surgery.merge import merge
from esper.surgery.site import Port, Site

Record = list[dict[str, Any]]
MELTING = ("merge", "widen", "fold")
"""The operations by which grafts become a part of the model's own layers."""


def attached(site: Site, recipe: Recipe) -> dict[str, Any]:
    """The record of one attachment."""
    return {
        "op": "attach",
        "exit": site.exit,
        "entry": site.entry,
        "attachment": site.attachment,
        "source": [site.source.kind, list(site.source.shape), site.source.batch_dim],
        "target": [site.target.kind, list(site.target.shape), site.target.batch_dim],
        "block": msgspec.to_builtins(site.block),
        "blueprint": recipe.blueprint,
        "options": dict(recipe.options),
    }


def folded(forms: Mapping[str, Form]) -> dict[str, Any]:
    """The record of folding."""
    return {"op": "fold", "forms": {name: list(form) for name, form in forms.items()}}


def site_of(op: dict[str, Any]) -> Site:
    """The site of an attachment."""
    ports = _port(op["source"]), _port(op["target"])
    block = msgspec.convert(op.get("block"), Block | None)
    return Site(op["exit"], *ports, op["entry"], op["attachment"], block)


def recipe_of(op: dict[str, Any]) -> Recipe:
    """The recipe of an attachment."""
    return Recipe.of(op["blueprint"], **op["options"])


def graft_of(op: dict[str, Any], *, seed: int = 0) -> Graft:
    """A fresh graft from the record of one attachment."""
    site, recipe = site_of(op), recipe_of(op)
    return Graft(build(recipe, site, seed=seed), site, recipe)


def replay(
    model: nn.Module,
    record: Sequence[dict[str, Any]],
    optimizer: Any = None,
) -> None:
    """Do to a fresh ``model`` what ``record`` says; parameters join ``optimizer`` in the order in which they did.

    Raises CheckpointError when the model has another architecture.
    """
    for op in record:
        try:
            _redo(model, op, optimizer)
        except (AttributeError, SiteError) as error:
            raise CheckpointError(
                f"the growth record does not fit this model: {error}; build the model it was made with"
            ) from error


def own_parameters(model: nn.Module, exit_name: str) -> list[tuple[str, nn.Parameter]]:
    """A module's own parameters by full name: not those of its grafts, nor any that another module reads too."""
    module = model.get_submodule(exit_name)
    elsewhere = {
        id(p) for other in model.modules() if other is not module for p in other.parameters(recurse=False)
    }
    prefix = f"{exit_name}." if exit_name else ""
    own = module.named_parameters(recurse=False)
    return [(f"{prefix}{name}", p) for name, p in own if id(p) not in elsewhere]


def _redo(model: nn.Module, op: dict[str, Any], optimizer: Any) -> None:
    match op["op"]:
        case "attach":
            graft = like_host(graft_of(op), model)
            if optimizer is not None:
                join(optimizer, assign(optimizer, model.get_submodule(op["exit"]), graft))
            attach(model, graft)
        case "cut":
            cut(model, op["exit"])
            _dismiss(optimizer, map(model.get_parameter, op["dead"]))
        case "merge":
            _dismiss(optimizer, merge(model, op["places"]))
        case "prune":
            shrink_layers(model, msgspec.convert(op["block"], Block), op["units"], optimizer)
        case "bypass":
            _dismiss(optimizer, bypass(model, op["module"]))
        case "detach":
            _dismiss(optimizer, drop_graft(model, op["exit"], op["number"]))
        case "widen":
            enlarge(model, op["places"], optimizer)
        case "fold":
            fold(model, {name: Form(*data) for name, data in op["forms"].items()})
        case other:
            raise CheckpointError(
                f"unknown operation {other!r}: the checkpoint is of a newer version of esper"
            )


def _dismiss(optimizer: Any, parameters: Iterable[nn.Parameter]) -> None:
    if optimizer is not None:
        dismiss(optimizer, parameters)


def drop_graft(model: nn.Module, exit_name: str, number: int) -> list[nn.Parameter]:
    """Take out the ``number``-th graft at a module; its parameters."""
    graft = grafts_of(model, exit_name)[number]
    detach(model, graft)
    return list(graft.parameters())


def attach_copy(averaged: nn.Module, graft: Graft) -> Graft:
    """Give an averaged copy of the model the same graft."""
    twin = copy.deepcopy(graft)
    attach(inner(averaged), twin)
    return twin


def _port(data: Sequence[Any]) -> Port:
    kind, shape, batch_dim = data
    return Port(kind, tuple(shape), batch_dim)
