"""A finished network as plain data: layers of ``torch.nn``, calls between them, weights beside.

Never pickle.

``describe`` traces a network with ``torch.fx``; ``rebuild`` makes an equal one from the description and its
weights. Only what fx records by itself may come back: layers of ``torch.nn``, functions that torch lets one
override and the operations that these are made of, operators, and methods of tensors.
"""

from __future__ import annotations

import ast
import builtins
import inspect
import math
import operator
from collections.abc import Callable
from functools import cache
from types import BuiltinFunctionType, FunctionType
from typing import Any

import msgspec
import torch
from torch import Tensor, fx, nn
from torch._ops import OpOverload
from torch.overrides import get_overridable_functions

from esper.errors import RunError
from esper.training.network import evaluating

FUNCTIONS = (FunctionType, BuiltinFunctionType)
HELD = "network"
LITERALS = (bool, int, float, str)
READS_FILES = {"aten.from_file.default", "aten.from_file.out"}


class Call(msgspec.Struct, frozen=True):
    """One node of the graph; ``args`` are encoded by ``_encode``."""

    op: str
    name: str
    target: str
    args: Any
    kwargs: Any


class Description(msgspec.Struct, frozen=True):
    """``layers`` maps a path to the class and arguments of a ``torch.nn`` layer, ``weights`` are loose
    tensors.
    """

    layers: dict[str, tuple[str, str]]
    weights: dict[str, bool]
    calls: tuple[Call, ...]


class _Tracer(fx.Tracer):
    """Looks into every module that is not a layer of torch which can be built anew from what it prints."""

    proxy_buffer_attributes = True  # else what is made of buffers alone becomes a constant of no module

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        # Asked before tracing: while it goes on, reading a parameter is recorded as part of the graph.
        inner = {m for m in model.modules() if m is not model and _is_of_torch(m)}
        self._layers = {module for module in inner if constructor(module) is not None}

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:  # noqa: ARG002 - fx's signature
        return m in self._layers

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """A layer's forward hooks are part of what it does: they are traced after it."""
        output = super().call_module(m, forward, args, kwargs)
        if m not in self._layers:
            return output
        for number, hook in m._forward_hooks.items():
            takes_kwargs = number in m._forward_hooks_with_kwargs
            changed = hook(m, args, kwargs, output) if takes_kwargs else hook(m, args, output)
            output = output if changed is None else changed
        return output


def describe(model: nn.Module, *, num_inputs: int = 1) -> Description:
    """The description of a network that is called with ``num_inputs`` tensors.

    Raises ``RunError`` when it does more than layers, functions and operators.
    """
    try:
        with evaluating(model):
            graph = _Tracer(model).trace(_holder(model, num_inputs))
    except Exception as error:  # fx raises whatever the traced code raises
        raise RunError(f"this network cannot be written as a graph of layers: {error}") from error
    return written(graph, model)


def written(graph: fx.Graph, model: nn.Module) -> Description:
    """The description of a graph of calls to parts of ``model``. Raises ``RunError`` for what is not of torch."""
    layers, weights, calls = {}, {}, []
    for node in graph.nodes:
        target = (
            _name_of(node.target) if node.op == "call_function" else str(node.target).removeprefix(f"{HELD}.")
        )
        if node.op == "call_module":
            layers[target] = _layer(model.get_submodule(target))
        elif node.op == "get_attr":
            weights[target] = isinstance(_held_tensor(model, target), nn.Parameter)
        calls.append(Call(node.op, node.name, target, _encode(node.args), _encode(node.kwargs)))
    return Description(layers, weights, tuple(calls))


def _held_tensor(model: nn.Module, target: str) -> Tensor:
    try:
        tensor: Tensor = operator.attrgetter(target)(model)
    except AttributeError:
        raise RunError("this network makes a tensor on its way that no layer of it holds") from None
    return tensor


def _holder(model: nn.Module, num_inputs: int) -> nn.Module:
    """A module that only calls ``model``: fx looks at the class of the outermost module, not at what it was given."""
    graph = fx.Graph()
    inputs = tuple(graph.placeholder(f"input_{number}") for number in range(num_inputs))
    graph.output(graph.call_module(HELD, inputs))
    return fx.GraphModule({HELD: model}, graph)


def rebuild(description: Description, state: dict[str, Tensor]) -> fx.GraphModule:
    """The network of a description with weights ``state``, in eval mode.

    Raises ``RunError`` for a foreign one.
    """
    root = nn.Module()
    for path, (name, arguments) in description.layers.items():
        _place(root, path, _construct(name, arguments))
    try:
        for path, is_parameter in description.weights.items():
            _place(root, path, nn.Parameter(state[path]) if is_parameter else state[path])
        model = fx.GraphModule(root, _graph(description.calls))
        model.load_state_dict(state)
    except (RuntimeError, KeyError) as error:
        raise RunError(f"the weights do not fit the network: {error}") from error
    return model.eval()


def weights_of(model: nn.Module, description: Description) -> dict[str, Tensor]:
    """The tensors that ``rebuild`` needs, by path."""
    state = {}
    for path in description.layers:
        own = _own_state(model.get_submodule(path))
        state.update({f"{path}.{name}": tensor.detach() for name, tensor in own.items()})
    state.update({path: operator.attrgetter(path)(model).detach() for path in description.weights})
    return state


def constructor(module: nn.Module) -> str | None:
    """Arguments that build a layer like ``module`` anew, as Python text.

    ``None`` when what it prints does not do.
    """
    for write in (_printed, _by_signature):
        try:
            arguments = write(module)
            twin = _construct(type(module).__name__, arguments)
        except (RunError, TypeError, ValueError, AttributeError):
            continue
        if _shapes(twin) == _shapes(module):
            return arguments
    return None


def _is_of_torch(module: nn.Module) -> bool:
    return type(module) is vars(nn).get(type(module).__name__) and not isinstance(module, nn.Sequential)


def _layer(module: nn.Module) -> tuple[str, str]:
    arguments = constructor(module)
    assert arguments is not None  # the tracer stops at no other module
    return type(module).__name__, arguments


def _printed(module: nn.Module) -> str:
    text = module.extra_repr()
    for mode in ("reflect", "replicate", "circular"):
        text = text.replace(f"padding_mode={mode}", f"padding_mode={mode!r}")
    return text


def _by_signature(module: nn.Module) -> str:
    """For layers that print nothing, such as attention: constructor arguments that are kept under their own
    names.
    """
    known = vars(module)
    names = [
        name for name in inspect.signature(type(module)).parameters if isinstance(known.get(name), LITERALS)
    ]
    return ", ".join(f"{name}={known[name]!r}" for name in names)


def _shapes(module: nn.Module) -> dict[str, Any]:
    return {name: (tensor.shape, tensor.dtype) for name, tensor in _own_state(module).items()}


def _own_state(module: nn.Module) -> dict[str, Tensor]:
    """The tensors of a layer without those of grafts that it holds."""
    return {name: t for name, t in module.state_dict().items() if not name.startswith("grafts.")}


def _construct(name: str, arguments: str) -> nn.Module:
    kind = vars(nn).get(name)
    if not (inspect.isclass(kind) and issubclass(kind, nn.Module)):
        raise RunError(f"{name} is not a layer of torch.nn")
    args, kwargs = _literals(arguments)
    module: nn.Module = kind(*args, **kwargs)
    return module


def _literals(arguments: str) -> tuple[list[Any], dict[str, Any]]:
    """Arguments in Python text, taken as literals: nothing is run."""
    try:
        call = ast.parse(f"f({arguments})", mode="eval").body
        assert isinstance(call, ast.Call)
        args = [ast.literal_eval(value) for value in call.args]
        return args, {word.arg: ast.literal_eval(word.value) for word in call.keywords if word.arg}
    except (ValueError, SyntaxError) as error:
        raise RunError(f"{arguments!r} are not arguments of a layer") from error


def _place(root: nn.Module, path: str, thing: nn.Module | Tensor) -> None:
    parent, _, name = path.rpartition(".")
    for part in filter(None, parent.split(".")):
        if part not in root._modules:
            root.add_module(part, nn.Module())
        root = root.get_submodule(part)
    if isinstance(thing, nn.Module):
        root.add_module(name, thing)
    elif isinstance(thing, nn.Parameter):
        root.register_parameter(name, thing)
    else:
        root.register_buffer(name, thing)


def _graph(calls: tuple[Call, ...]) -> fx.Graph:
    graph = fx.Graph()
    nodes: dict[str, fx.Node] = {}
    for call in calls:
        target: Any = call.target
        if call.op == "call_function":
            target = _function(call.target)
        elif call.op == "call_method" and call.target.startswith("_"):
            raise RunError(f"{call.target} is not a method that a description may call")
        args, kwargs = _decode(call.args, nodes), _decode(call.kwargs, nodes)
        nodes[call.name] = graph.create_node(call.op, target, args, kwargs, call.name)
    graph.lint()
    return graph


@cache
def _functions() -> dict[str, Callable[..., Any]]:
    """What a graph may call, by name."""
    allowed: dict[str, Callable[..., Any]] = {"builtins.getattr": builtins.getattr}
    for module, functions in get_overridable_functions().items():
        if module is not Tensor:
            allowed.update({_key(f): f for f in functions if isinstance(f, FUNCTIONS)})
    for module in (operator, math):
        allowed.update({_key(f): f for f in vars(module).values() if isinstance(f, FUNCTIONS)})
    return allowed


def _key(function: Callable[..., Any]) -> str:
    return f"{function.__module__}.{function.__name__}"


def _name_of(function: Callable[..., Any]) -> str:
    if isinstance(function, OpOverload):
        return str(function)
    name = _key(function)
    if _functions().get(name) is not function:
        raise RunError(f"this network calls {name}, which is not a function of torch")
    return name


def _function(name: str) -> Callable[..., Any]:
    try:
        return _operation(name) if name.startswith("aten.") else _functions()[name]
    except (KeyError, AttributeError):
        raise RunError(f"{name} is not a function that a description may call") from None


def _operation(name: str) -> Callable[..., Any]:
    """``aten.add.Tensor``: one of the operations that torch's own functions are made of."""
    operation = operator.attrgetter(name)(torch.ops)
    if not isinstance(operation, OpOverload) or operation.namespace != "aten" or name in READS_FILES:
        raise KeyError(name)
    return operation


def _encode(value: Any) -> Any:
    """JSON values; what JSON lacks becomes ``{kind: content}``."""
    match value:
        case None | bool() | int() | float() | str():
            return value
        case fx.Node():
            return {"node": value.name}
        case slice():
            return {"slice": [_encode(part) for part in (value.start, value.stop, value.step)]}
        case torch.device():
            return {"device": str(value)}
        case torch.dtype() | torch.layout() | torch.memory_format():
            return {type(value).__name__: str(value).removeprefix("torch.")}
        case tuple():
            return {"tuple": [_encode(item) for item in value]}
        case list():
            return {"list": [_encode(item) for item in value]}
        case dict():
            return {"dict": [[key, _encode(item)] for key, item in value.items()]}
        case _ if value is Ellipsis:
            return {"ellipsis": True}
    raise RunError(f"this network passes a {type(value).__name__} around, which cannot be written down")


def _decode(value: Any, nodes: dict[str, fx.Node]) -> Any:
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    match kind:
        case "node":
            return nodes[content]
        case "slice":
            return slice(*(_decode(part, nodes) for part in content))
        case "dtype" | "layout" | "memory_format":
            return vars(torch)[content]
        case "device":
            return torch.device(content)
        case "tuple":
            return tuple(_decode(item, nodes) for item in content)
        case "list":
            return [_decode(item, nodes) for item in content]
        case "dict":
            return {key: _decode(item, nodes) for key, item in content}
        case "ellipsis":
            return Ellipsis
    raise RunError(f"{kind!r} is a kind of value that this version of Esper does not know")
