"""New parameters for optimizers that are already under way. Knows torch's optimizers, no grafts.

Parameters join the list of an existing group: ``add_param_group`` breaks OneCycleLR and LambdaLR and lets others drift.
"""

from __future__ import annotations

import copy
from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count, islice
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from esper.errors import OptimizerError
from esper.surgery.random_streams import streams_kept

REFUSED = {
    torch.optim.LBFGS: "keeps one flat history of all parameters",
    torch.optim.SparseAdam: "takes sparse gradients only",
}
NAMES = "param_names"
STEP_ERRORS = (RuntimeError, ValueError, TypeError, KeyError, IndexError, AttributeError)


def check_optimizer(optimizer: Optimizer, model: nn.Module) -> None:
    """Raise OptimizerError when ``optimizer`` cannot take new parameters or does not train ``model``."""
    for refused, reason in REFUSED.items():
        if isinstance(optimizer, refused):
            raise OptimizerError(
                f"{refused.__name__} cannot take new parameters: it {reason}; use AdamW or SGD"
            )
    if any(isinstance(value, Optimizer) for value in vars(optimizer).values()):
        raise OptimizerError(
            f"{type(optimizer).__name__} wraps another optimizer, which a trial cannot copy; pass the inner one"
        )
    own = {id(p) for p in model.parameters()}
    if not any(id(p) in own for group in optimizer.param_groups for p in group["params"]):
        raise OptimizerError(
            "the optimizer holds none of the model's parameters; pass the one that trains it"
        )


def sibling(optimizer: Optimizer, parameters: Sequence[Sequence[nn.Parameter]]) -> Optimizer:
    """An optimizer of the same class and options for other parameters: ``parameters[i]`` under the options of group i.

    It shares nothing with the original: no state, no hooks, no scheduler's patches.
    """
    fresh = object.__new__(type(optimizer))
    for name, value in vars(optimizer).items():
        if name not in ("step", "zero_grad"):
            fresh.__dict__[name] = _unshared(value)
    fresh.state = defaultdict(dict)
    fresh.param_groups = [
        {**_options(group), "params": list(own)}
        for group, own in zip(optimizer.param_groups, parameters, strict=True)
    ]
    if isinstance(optimizer, torch.optim.Adagrad):  # the one that makes its state in the constructor
        first = optimizer.defaults["initial_accumulator_value"]
        groups = [dict(group) for group in fresh.param_groups]
        fresh.state.update(torch.optim.Adagrad(groups, initial_accumulator_value=first).state)
    return fresh


@contextmanager
def put_back_on_error(optimizer: Optimizer) -> Iterator[None]:
    """Gives every parameter the state that it has now, when the code inside raises."""
    held = [p for group in optimizer.param_groups for p in group["params"]]
    states = state_of(optimizer, held)
    try:
        yield
    except BaseException:
        optimizer.state.clear()
        optimizer.state.update({p: state for p, state in zip(held, states, strict=True) if state})
        raise


def follow(trial: Optimizer, optimizer: Optimizer) -> None:
    """Give every group of ``trial`` the present options (learning rate and all) of the group that it was made from."""
    for own, group in zip(trial.param_groups, optimizer.param_groups, strict=True):
        own.update(_options(group))


def assign(optimizer: Optimizer, exit_module: nn.Module, graft: nn.Module) -> list[list[nn.Parameter]]:
    """The parameters of ``graft`` by optimizer group: matrices go with the exit's weight, vectors with its bias."""
    matrices = _group_of(optimizer, [p for p in exit_module.parameters() if p.dim() > 1])
    vectors = _group_of(optimizer, [p for p in exit_module.parameters() if p.dim() <= 1], default=matrices)
    groups: list[list[nn.Parameter]] = [[] for _ in optimizer.param_groups]
    for parameter in graft.parameters():
        groups[matrices if parameter.dim() > 1 else vectors].append(parameter)
    return groups


def accepts(optimizer: Optimizer, groups: Sequence[Sequence[nn.Parameter]]) -> str | None:
    """Why the optimizer cannot step parameters of these shapes, found by one step of a throw-away copy; or ``None``."""
    copies = [[nn.Parameter(torch.zeros_like(p)) for p in group] for group in groups]
    for parameter in (p for group in copies for p in group):
        parameter.grad = torch.ones_like(parameter)
    try:
        with streams_kept():
            sibling(optimizer, copies).step()
    except STEP_ERRORS as error:
        return f"{type(optimizer).__name__} cannot take its parameters: {error}"
    return None


def adopt(optimizer: Optimizer, trial: Optimizer) -> None:
    """Move the parameters of ``trial``, with their optimizer state, into the same groups of ``optimizer``."""
    join(optimizer, [group["params"] for group in trial.param_groups])
    for parameter, state in trial.state.items():
        optimizer.state[parameter] = state


def join(optimizer: Optimizer, groups: Sequence[Sequence[nn.Parameter]]) -> None:
    """Append parameters without state to the optimizer's groups; an optimizer that names its own gets names."""
    for group, own in zip(optimizer.param_groups, groups, strict=True):
        group["params"].extend(own)
        if NAMES in group:
            taken = {name for other in optimizer.param_groups for name in other.get(NAMES, ())}
            fresh = (name for n in count() if (name := f"grown.{n}") not in taken)
            group[NAMES].extend(islice(fresh, len(own)))


def dismiss(optimizer: Optimizer, parameters: Iterable[nn.Parameter]) -> None:
    """Take parameters and their state out of the optimizer; unknown ones are ignored."""
    gone = {id(p) for p in parameters}
    for group in optimizer.param_groups:
        for parameter in [p for p in group["params"] if id(p) in gone]:
            optimizer.state.pop(parameter, None)
        if NAMES in group:
            named = zip(group["params"], group[NAMES], strict=True)
            group[NAMES][:] = [name for p, name in named if id(p) not in gone]
        group["params"][:] = [p for p in group["params"] if id(p) not in gone]


def replace_parameter(
    optimizer: Optimizer, old: nn.Parameter, new: nn.Parameter, state: dict[str, Any]
) -> None:
    """Put ``new``, with ``state``, where ``old`` is in the optimizer's groups; an unknown one is ignored."""
    optimizer.state.pop(old, None)
    for group in optimizer.param_groups:
        for index, parameter in enumerate(group["params"]):
            if parameter is old:
                group["params"][index] = new
                optimizer.state.update({new: state} if state else {})


def state_of(optimizer: Optimizer, parameters: Iterable[nn.Parameter]) -> list[dict[str, Any]]:
    """A copy of the optimizer's state for each parameter, in order; an empty one where there is none."""
    return [copied(optimizer.state.get(p, {})) for p in parameters]


def copied(state: dict[str, Any]) -> dict[str, Any]:
    """One parameter's optimizer state, sharing nothing with ``state``."""
    return {
        k: v.detach().clone() if isinstance(v, torch.Tensor) else copy.deepcopy(v) for k, v in state.items()
    }


def _options(group: dict[str, Any]) -> dict[str, Any]:
    """What holds for a whole group, whatever parameters are in it."""
    return {name: value for name, value in group.items() if name not in ("params", NAMES)}


def _unshared(value: Any) -> Any:
    """Hooks are left behind, collections of the user's own are copied."""
    if isinstance(value, OrderedDict):
        return OrderedDict()
    return value.copy() if isinstance(value, (list, dict, set)) else value


def _group_of(optimizer: Optimizer, parameters: Sequence[nn.Parameter], *, default: int | None = None) -> int:
    wanted = {id(p) for p in parameters}
    for index, group in enumerate(optimizer.param_groups):
        if any(id(p) in wanted for p in group["params"]):
            return index
    if default is not None:
        return default
    sizes = [sum(p.numel() for p in group["params"]) for group in optimizer.param_groups]
    return sizes.index(max(sizes))
