"""A grown model on disk, to be used without its training. Knows the record of growth and the checkpoint's format."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from esper.errors import CheckpointError
from esper.growth import checkpoint
from esper.growth.grower import Grower
from esper.growth.record import replay

KIND = "grown model"


def save(folder: str | Path, model: nn.Module, grower: Grower) -> None:
    """Write ``model`` as it is now, folded or not, with the record of its growth; safetensors and JSON, atomically.

    Raises CheckpointError when the disk refuses; what was there before then still stands.
    """
    tree = {"kind": KIND, "record": grower.record, "model": dict(model.state_dict())}
    checkpoint.write(Path(folder), tree)


def load(folder: str | Path, model: nn.Module) -> nn.Module:
    """Make a fresh instance of the same class what the saved model was, and return it: same outputs, same names.

    Raises CheckpointError when the folder holds no such model, or ``model`` has another architecture.
    """
    tree = checkpoint.read(Path(folder))
    if not isinstance(tree, dict) or tree.get("kind") != KIND:
        raise CheckpointError(f"{folder} holds no model saved by esper.save")
    replay(model, tree["record"])
    try:
        model.load_state_dict(tree["model"])
    except RuntimeError as error:
        raise CheckpointError(f"{folder} was saved from another architecture: {error}") from error
    return model
