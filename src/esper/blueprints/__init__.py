"""From recipe to module: the catalogue of graft bodies, their cost, and the check at birth."""

from __future__ import annotations

from esper.blueprints import (
    attention,
    bottleneck,
    conv1d,
    conv2d,
    ffn,
    gated,
    gru,
    lora,
    mlp,
    squeeze_excite,
    widen,
)
from esper.blueprints.birth import check_birth
from esper.blueprints.catalogue import (
    DEFAULT_RECIPES,
    Blueprint,
    blueprint,
    build,
    cost,
    find,
    fits,
    names,
    offers,
)
from esper.blueprints.cost import Cost

FAMILIES = (attention, bottleneck, conv1d, conv2d, ffn, gated, gru, lora, mlp, squeeze_excite, widen)
"""The modules whose import fills the catalogue; each holds one family."""

__all__ = [
    "DEFAULT_RECIPES",
    "Blueprint",
    "Cost",
    "blueprint",
    "build",
    "check_birth",
    "cost",
    "find",
    "fits",
    "names",
    "offers",
]
