"""Who trains a model, by what it is wrapped in. Knows no exchange."""

from __future__ import annotations

import sys

from torch import nn
from torch.nn.parallel import DistributedDataParallel

from esper.growth.ranks import Alone, Ranks
from esper.growth.replicas import replicas_of


def ranks_of(model: nn.Module) -> tuple[nn.Module, Ranks]:
    """The model itself and the ranks that train it: those of a wrapper of torch's, else this process alone.

    Raises ConfigurationError for a wrapper that cannot take new parameters.
    """
    if isinstance(model, DistributedDataParallel):
        inside: nn.Module = model.module
        return inside, replicas_of(model) or Alone()
    fsdp = sys.modules.get(
        "torch.distributed.fsdp"
    )  # slow to import, and who has a sharded model has imported it
    if fsdp is None or not isinstance(model, fsdp.FSDPModule):
        return model, Alone()
    from esper.growth.shards import shards_of  # it rests on what torch does not promise

    return model, shards_of(model)
