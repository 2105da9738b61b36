"""Networks that grow while they train, and remember what worked.

The public names are loaded when they are first used: importing ``esper``, or one of its modules that need no torch,
does not load torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from esper.blueprints import blueprint
    from esper.controller.judge import Judge
    from esper.controller.rules import Rules
    from esper.errors import EsperError
    from esper.growth.budget import Budget
    from esper.growth.grower import Grower
    from esper.growth.held_out import HeldOut, held_out
    from esper.growth.saved import load, save
    from esper.recipe import Recipe
    from esper.surgery.site import Site
    from esper.training.data import Data
    from esper.training.metric import Metric
    from esper.training.task import Task
    from esper.training.trainer import Trainer

__version__ = "0.1.0"

__all__ = [
    "Budget",
    "Data",
    "EsperError",
    "Grower",
    "HeldOut",
    "Judge",
    "Metric",
    "Recipe",
    "Rules",
    "Site",
    "Task",
    "Trainer",
    "__version__",
    "blueprint",
    "held_out",
    "load",
    "save",
]

_HOME = {
    "Budget": "esper.growth.budget",
    "Data": "esper.training.data",
    "EsperError": "esper.errors",
    "Grower": "esper.growth.grower",
    "HeldOut": "esper.growth.held_out",
    "Judge": "esper.controller.judge",
    "Metric": "esper.training.metric",
    "Recipe": "esper.recipe",
    "Rules": "esper.controller.rules",
    "Site": "esper.surgery.site",
    "Task": "esper.training.task",
    "Trainer": "esper.training.trainer",
    "blueprint": "esper.blueprints",
    "held_out": "esper.growth.held_out",
    "load": "esper.growth.saved",
    "save": "esper.growth.saved",
}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'esper' has no attribute {name!r}")
    try:
        value: object = vars(importlib.import_module(_HOME[name]))[name]
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("esper"):
            raise
        advice = f"esper.{name} needs {error.name}: pip install 'esper-grow[train]'"
        raise ModuleNotFoundError(advice, name=error.name) from error
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
