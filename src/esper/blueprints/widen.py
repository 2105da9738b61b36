"""``widen``: more units in a block of the model's own layers; folds into those layers, made larger."""

from __future__ import annotations

from torch import nn

from esper.blueprints.catalogue import blueprint
from esper.errors import RecipeError
from esper.surgery.block import Block
from esper.surgery.narrow import narrow
from esper.surgery.site import KINDS, Port
from esper.surgery.widening import WIDEN

PAIRS = tuple((source, target) for source in KINDS for target in KINDS)


@blueprint(WIDEN, pairs=PAIRS, of_block=True)
def widen(
    source: Port,  # noqa: ARG001 - the block says it all
    target: Port,  # noqa: ARG001
    block: Block,
    *,
    ratio: float = 0.5,
    units: int = 0,
) -> nn.Module:
    """More units in a block of the model's own layers: what these can do, and more of it.

    ``units`` of them, or (0) ``ratio`` times as many as there are, rounded up to whole groups.
    """
    if ratio <= 0 or units < 0:
        raise RecipeError(f"ratio must be positive and units not negative, not {ratio} and {units}")
    wanted = units or max(1, round(ratio * block.width))
    body = narrow(block, -(-wanted // block.multiple) * block.multiple)
    nn.init.zeros_(body.get_parameter(f"layer_{len(block.layers) - 1}.weight"))
    return body
