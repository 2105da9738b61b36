"""Makes layers that ``fully_shard`` (FSDP2) has shared out whole for a while, and shares them out again as they were.

torch has no way back from ``fully_shard``: what it leaves on a module is taken off here. Does not know what is done to
the layers meanwhile; they may grow, go, or be replaced by others under the same names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.distributed._composable.contract import REGISTRY_KEY, STATE_KEY
from torch.distributed._composable_state import _module_state_mapping
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.fsdp._fully_shard._fsdp_state import FSDPState, _get_module_fsdp_state
from torch.distributed.tensor import DTensor, Shard, distribute_tensor
from torch.optim import Optimizer

from esper.errors import ConfigurationError
from esper.growth.optimizers import replace_parameter
from esper.surgery.graft import Graft
from esper.surgery.names import above

Convert = Callable[[Any, nn.Parameter], Any]
_OF_USERS = (
    "reduce_grads",
    "all_reduce_grads",
    "reshard_after_backward",
    "gradient_divide_factor",
    "reduce_scatter_unused_params",
    "force_sum_reduction_for_comms",
    "unshard_async_op",
    "unshard_in_backward",
    "_all_reduce_hook",
    "_all_reduce_hook_stream",
)
"""What the methods of a sharded module set; not every torch knows all."""


class _Unit(NamedTuple):
    """Modules by name that ``fully_shard`` was called with at once, what it was told, and what was set since."""

    modules: dict[str, nn.Module]
    state: FSDPState
    options: dict[str, Any]
    settings: dict[str, Any]


@contextmanager
def gathered(
    model: nn.Module, names: Iterable[str], optimizer: Optimizer, *, agree: Callable[[], None]
) -> Iterator[None]:
    """Inside, the modules ``names`` and all that hold them are as if ``fully_shard`` had never seen them.

    Their parameters are whole, with gradients and with their state in ``optimizer``; ``agree`` is called before they
    are shared out again, which they are not after an error. Modules inside them stay sharded, and ``model`` must not be
    called meanwhile.
    Raises ConfigurationError where parameters are shared out in some other way, too.
    """
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()
    units = _units(model, names)
    ignored = {p for p in model.parameters() if not isinstance(p, DTensor)}
    held = _owned(model, units)
    dims = _dims(model)
    _take_places(model, optimizer, {p: nn.Parameter(full(p.detach()), p.requires_grad) for p in held}, full)
    for unit in units:
        _unwrap(unit)
    yield
    agree()
    whole = [p for p in model.parameters() if not isinstance(p, DTensor) and p not in ignored]
    places = _places(model, whole)
    _wrap(model, units, ignored, dims)
    now = {old: module._parameters[name] for old, (module, name) in places.items()}
    _take_places(model, optimizer, {old: new for old, new in now.items() if new is not None}, like)


def read(model: nn.Module, parameters: Iterable[Tensor]) -> list[Tensor]:
    """What the latest pass of ``model`` gathered of each of its sharded ``parameters``, and read."""
    states = {state for state in map(_get_module_fsdp_state, model.modules()) if state is not None}
    groups = [state._fsdp_param_group for state in states]
    held = [vars(own) for group in groups if group is not None for own in group.fsdp_params]
    whole = {own["sharded_param"]: own["_unsharded_param"] for own in held if "_unsharded_param" in own}
    return [whole.get(parameter, parameter) for parameter in parameters]


def settle(model: nn.Module) -> None:
    """Do now what ``fully_shard`` leaves to the first call: who watches that would take it for the model's work."""
    state = _get_module_fsdp_state(model)
    assert state is not None
    state._lazy_init()


def share(module: nn.Module, mesh: DeviceMesh, optimizer: Optimizer) -> None:
    """Let ``fully_shard`` share out ``module`` for good, and likewise its state in ``optimizer``."""
    before = list(module.parameters())
    fully_shard(module, mesh=mesh)
    _take_places(module, optimizer, dict(zip(before, module.parameters(), strict=True)), like)


def _units(model: nn.Module, names: Iterable[str]) -> list[_Unit]:
    """All that hold a module of ``names``, or are one; the innermost first."""
    wanted = {name for end in names for name in (end, *above(end))}
    mesh = next(p for p in model.parameters() if isinstance(p, DTensor)).device_mesh
    found: dict[FSDPState, dict[str, nn.Module]] = {}
    for name, module in model.named_modules():
        state = _get_module_fsdp_state(module)
        if state is not None:
            found.setdefault(state, {})[name] = module
    units = [_unit(state, own, mesh) for state, own in found.items() if wanted & own.keys()]
    return sorted(units, key=lambda unit: -min(map(_depth, unit.modules)))


def _depth(name: str) -> int:
    return name.count(".") + bool(name)


def _unit(state: FSDPState, modules: dict[str, nn.Module], mesh: DeviceMesh) -> _Unit:
    group = state._fsdp_param_group
    options: dict[str, Any] = {"mesh": mesh, "mp_policy": state._mp_policy}
    if group is None:
        return _Unit(modules, state, options, {})
    if any(held.is_dtensor for held in group.fsdp_params):
        raise ConfigurationError(
            f"{next(iter(modules)) or 'the model'} is sharded by tensor parallelism besides fully_shard, and cannot be "
            "put together: gather it with torch.distributed.checkpoint.state_dict.get_model_state_dict "
            "(full_state_dict=True), and give that and grower.state_dict() to a model and a Grower of one process"
        )
    after = group.post_forward_mesh_info
    size = False if after is None else after is group.mesh_info or after.shard_mesh_size
    options |= {
        "mesh": group.mesh_info.mesh,
        "offload_policy": group.offload_policy,
        "reshard_after_forward": None if state._auto_reshard_after_forward else size,
    }
    return _Unit(modules, state, options, {key: vars(group)[key] for key in _OF_USERS if key in vars(group)})


def _owned(model: nn.Module, units: Iterable[_Unit]) -> list[nn.Parameter]:
    """The parameters that ``units`` share out: not those of sharded modules inside them."""
    own = {name for unit in units for name in unit.modules}
    modules, found = dict(model.named_modules()), dict[nn.Parameter, None]()
    for name, module in modules.items():
        holder = next(n for n in (name, *above(name)) if isinstance(modules.get(n), FSDPModule))
        if holder in own:
            found |= dict.fromkeys(filter(_is_shared_out, module.parameters(recurse=False)))
    return list(found)


def _is_shared_out(parameter: Tensor) -> bool:
    return isinstance(parameter, DTensor)


def _dims(model: nn.Module) -> dict[str, int]:
    """Along which dimension parameters are cut, by name, where that is not the first."""
    sharded = {name: p for name, p in model.named_parameters() if isinstance(p, DTensor)}
    cuts = {name: sum(s.dim for s in p.placements if isinstance(s, Shard)) for name, p in sharded.items()}
    return {name: dim for name, dim in cuts.items() if dim}


def _unwrap(unit: _Unit) -> None:
    """Take off what ``fully_shard`` has left on the modules."""
    handles = [unit.state._pre_forward_hook_handle, unit.state._post_forward_hook_handle]
    group = unit.state._fsdp_param_group
    if group is not None:
        handles += group._module_to_pre_save_state_dict_hook_handle.values()
        handles += group._module_to_pre_load_state_dict_hook_handle.values()
        handles += [held._post_load_hook_handle for held in group.fsdp_params]
    for handle in handles:
        handle.remove()
    for module in unit.modules.values():
        module.__class__ = type(module).__mro__[2]
        states = vars(module)[STATE_KEY]
        vars(module)[STATE_KEY] = {key: state for key, state in states.items() if state is not unit.state}
        del vars(module)[REGISTRY_KEY]["fully_shard"]
        del _module_state_mapping[module]


def _wrap(model: nn.Module, units: list[_Unit], ignored: set[nn.Parameter], dims: dict[str, int]) -> None:
    """Share out again what is there of ``units``, as it was."""
    alive = set(model.modules())
    successors: dict[FSDPState, FSDPState | None] = {unit.state: None for unit in units}
    for unit in units:
        modules = [_successor(model, name, module, alive) for name, module in unit.modules.items()]
        present = [module for module in modules if module is not None]
        if not present:
            continue
        if dims:
            unit.options["shard_placement_fn"] = _placing(model, dims, unit.options["mesh"])
        fully_shard(present if len(present) > 1 else present[0], ignored_params=ignored, **unit.options)
        successors[unit.state] = state = _get_module_fsdp_state(present[0])
        if state is not None and state._fsdp_param_group is not None:
            vars(state._fsdp_param_group).update(unit.settings)
    _set_at_rest(model, successors)


def _successor(model: nn.Module, name: str, module: nn.Module, alive: set[nn.Module]) -> nn.Module | None:
    """What is now in the place of ``module``; of a graft that is gone the layers that hold it take care."""
    if module in alive:
        return module
    return None if isinstance(module, Graft) else dict(model.named_modules()).get(name)


def _placing(
    model: nn.Module, dims: dict[str, int], mesh: DeviceMesh
) -> Callable[[nn.Parameter], Shard | None]:
    """What is said in ``dims``, where a parameter can be cut so."""
    size = mesh.size(mesh.ndim - 1)
    named = {p: dims[name] for name, p in model.named_parameters() if name in dims}

    def place(parameter: nn.Parameter) -> Shard | None:
        dim = named.get(parameter)
        return None if dim is None or parameter.shape[dim] % size else Shard(dim)

    return place


def _set_at_rest(model: nn.Module, successors: dict[FSDPState, FSDPState | None]) -> None:
    """As before a first call, which finds out who holds whom. None looks ahead any more to one that is gone."""
    before = {new: old for old, new in successors.items()}
    for state in filter(None, map(_get_module_fsdp_state, model.modules())):
        old = before.get(state, state)
        for ahead in ("_states_to_forward_prefetch", "_states_to_backward_prefetch"):
            now = [successors.get(other, other) for other in vars(old)[ahead]]
            vars(state)[ahead] = [other for other in now if other is not None]
        state._is_root = None


def _places(
    model: nn.Module, parameters: Iterable[nn.Parameter]
) -> dict[nn.Parameter, tuple[nn.Module, str]]:
    """A module and a name by which each is to be found."""
    wanted = set(parameters)
    return {
        p: (module, name)
        for module in model.modules()
        for name, p in module._parameters.items()
        if p is not None and p in wanted
    }


def _take_places(
    model: nn.Module, optimizer: Optimizer, changes: dict[nn.Parameter, nn.Parameter], convert: Convert
) -> None:
    """The new parameters stand where the old ones stood, with all that these had; ``model`` may have them already."""
    for module in model.modules():
        own = {name: changes[p] for name, p in module._parameters.items() if p is not None and p in changes}
        module._parameters.update(own)
    for old, new in changes.items():
        new.grad = None if old.grad is None else convert(old.grad, new)
        state = {name: convert(value, new) for name, value in optimizer.state.get(old, {}).items()}
        replace_parameter(optimizer, old, new, state)


def full(value: Any, _: nn.Parameter | None = None) -> Any:
    """In one piece."""
    if not isinstance(value, DTensor):
        return value
    near: Any = value.to(value.device_mesh.device_type)
    return near.full_tensor()


def like(value: Any, parameter: nn.Parameter) -> Any:
    """A value of the optimizer's state, or a gradient, sharded as ``parameter`` is where it has its shape."""
    if not (isinstance(value, Tensor) and isinstance(parameter, DTensor) and value.shape == parameter.shape):
        return value
    return distribute_tensor(value, parameter.device_mesh, parameter.placements).to(parameter.device)
