"""Takes units out of the model's own layers that it does as well without. Knows no phase, and not when."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import torch
from torch import Tensor

from esper.controller.judge import Verdict
from esper.growth.budget import Size
from esper.growth.host import Losses
from esper.growth.slicing import shrink_layers
from esper.growth.telling import share_of, tell
from esper.growth.training import inner
from esper.growth.work import Work
from esper.signals.saliency import Saliency
from esper.surgery.block import Block
from esper.surgery.shrinking import shrinkable, silenced, together


class Part(NamedTuple):
    """Units of a block that can only go together, and how much they matter."""

    saliency: float
    block: Block
    units: Tensor


def can_prune_units(work: Work) -> bool:
    """Whether there are units that may be pruned in this run."""
    return work.setup.prune == "all" and bool(_blocks(work))


def prune_units(work: Work, reference: Losses) -> None:
    """Take out the most units without which the model is as good as ``reference``, its losses before this session.

    The least salient go first, whatever their layer; halving finds how many. Each layer keeps its most salient.
    """
    parts = _ranked(work)
    most, verdict = _most(work, parts, reference)
    if verdict is None:
        return
    units = _by_block(parts[:most] or parts[:1])
    num_units = sum(map(len, units.values()))
    among = sum(block.width for block in {part.block for part in parts})
    work.judged(f"prune {num_units} of {among} units", "prune", verdict)
    if most:
        for block, numbers in units.items():
            _take_out(work, block, sorted(numbers.tolist()), verdict)


def _most(work: Work, parts: Sequence[Part], reference: Losses) -> tuple[int, Verdict | None]:
    """How many of ``parts`` may go at the most, with the verdict on them (or, where none may, on the first one)."""
    accepted, refused = 0, len(parts) + 1
    verdicts: dict[int, Verdict] = {}
    while refused - accepted > 1:
        middle = (accepted + refused) // 2
        with silenced(work.setup.host.model, _by_block(parts[:middle])):
            losses = work.setup.host.losses()
        looks = len(parts).bit_length()
        verdicts[middle] = work.setup.judge.prune(reference, losses, share=share_of(work), looks=looks)
        accepted, refused = (middle, refused) if verdicts[middle].accepted else (accepted, middle)
    return accepted, verdicts.get(accepted or 1)


def _ranked(work: Work) -> list[Part]:
    """The parts that may go, the least salient first."""
    host, blocks = work.setup.host, _blocks(work)
    saliency = Saliency(host.model, blocks, with_gradients=host.differentiable)
    with saliency.watching():
        host.sweep()
    found = []
    for block in blocks:
        parts = together(block)
        own = [Part(float(saliency.of[block][units].sum()), block, units) for units in parts]
        found += sorted(own, key=lambda part: part.saliency)[:-1]
    return sorted(found, key=lambda part: part.saliency)


def _by_block(parts: Sequence[Part]) -> dict[Block, Tensor]:
    blocks = dict.fromkeys(part.block for part in parts)
    return {block: torch.cat([p.units for p in parts if p.block == block]) for block in blocks}


def _blocks(work: Work) -> list[Block]:
    """The blocks as they are now, of those that can become smaller."""
    gone: dict[tuple[tuple[str, ...], str], int] = {}
    for op in work.record:
        if op["op"] == "prune":
            block = msgspec.convert(op["block"], Block)
            key = (block.producers, block.consumer)
            gone[key] = gone.get(key, 0) + len(op["units"])
    present = [
        msgspec.structs.replace(b, width=b.width - gone.get((b.producers, b.consumer), 0))
        for b in work.setup.blocks
    ]
    return [b for b in present if len(together(b)) > 1 and shrinkable(work.setup.host.model, b)]


def _take_out(work: Work, block: Block, units: list[int], verdict: Verdict) -> None:
    training, host = work.setup.training, work.setup.host
    before = host.macs()
    for averaged in map(inner, training.averaged):
        shrink_layers(averaged, block, units, None)
    params = shrink_layers(training.model, block, units, training.optimizer)
    work.record.append({"op": "prune", "block": msgspec.to_builtins(block), "units": units})
    work.grow(Size(-params, host.macs() - before))
    where = " and ".join(block.producers)
    tell(work, "units", where, params, verdict, units=(len(units), block.width))
