"""Builds a narrow copy of a block: the same layers for other units. Does not know what it is for."""

from __future__ import annotations

from torch import fx, nn

from esper.errors import SiteError
from esper.surgery.attention import written
from esper.surgery.block import ATTENTION, Block, Layer, Ref
from esper.surgery.per_unit import function

UNITS_NAME = {
    "Linear": ("out_features", "in_features"),
    "RNN": ("hidden_size", ""),
    "LSTM": ("hidden_size", ""),
}
UNITS_NAME |= {"GRU": ("hidden_size", ""), "GroupNorm": ("num_channels", ""), "PReLU": ("num_parameters", "")}
UNITS_NAME |= {f"Conv{d}d": ("out_channels", "in_channels") for d in (1, 2)}
UNITS_NAME |= {f"{kind}Norm{d}d": ("num_features", "") for d in (1, 2) for kind in ("Batch", "Instance")}


def narrow(block: Block, num_units: int) -> fx.GraphModule:
    """Layers like those of ``block`` with ``num_units`` units and fresh values; the consumer has no bias.

    Layer number ``n`` is the child ``layer_<n>``. All children are layers of torch. Raises SiteError unless
    ``num_units`` is a positive multiple of ``block.multiple``.
    """
    if num_units <= 0 or num_units % block.multiple:
        raise SiteError(f"{block} grows by multiples of {block.multiple} units, not by {num_units}")
    graph, root = fx.Graph(), nn.Module()
    nodes = {-1: graph.placeholder("x")}
    for number, layer in enumerate(block.layers):
        args = tuple(nodes[arg.layer] if isinstance(arg, Ref) else arg for arg in layer.args)
        if layer.kind == "select":  # a method: torch_geometric replaces the function by what fx cannot trace
            nodes[number] = graph.call_method("select", args)
        elif layer.kind == ATTENTION:
            nodes[number] = written(graph, tuple(nodes[arg.layer] for arg in _refs(layer)), **layer.of_class)
        elif layer.role == "function":
            nodes[number] = graph.call_function(function(layer.kind), args, layer.of_class)
        else:
            root.add_module(name_of_layer(number), _layer(layer, block, num_units))
            nodes[number] = graph.call_module(name_of_layer(number), args)
    graph.output(nodes[len(block.layers) - 1])
    return fx.GraphModule(root, graph, "Units")


def name_of_layer(number: int) -> str:
    """The child of a narrow copy that is like layer ``number`` of its block."""
    return f"layer_{number}"


def _refs(layer: Layer) -> list[Ref]:
    return [arg for arg in layer.args if isinstance(arg, Ref)]


def _layer(layer: Layer, block: Block, num_units: int) -> nn.Module:
    options = layer.of_class
    made, read = UNITS_NAME.get(layer.kind, ("", ""))
    if layer.role == "consumer":
        per_unit = block.outer * block.inner if layer.kind == "Linear" else 1
        options[read] = num_units * per_unit
    elif layer.role == "layer" and layer.kind.startswith("Conv"):
        options |= {"in_channels": num_units, "out_channels": num_units, "groups": num_units}
    elif made:
        options[made] = num_units
    if layer.kind == "GroupNorm":
        options["num_groups"] = num_units * options["num_groups"] // block.width
    module: nn.Module = vars(nn)[layer.kind](**options)
    return module
