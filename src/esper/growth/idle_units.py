"""Takes units out of the model's own layers that it does as well without. Knows no phase, and not when."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

import msgspec
import torch
from torch import Tensor

from esper.controller.judge import Verdict
from esper.growth.budget import Size
from esper.growth.host import Losses
from esper.growth.slicing import hand_over
from esper.growth.telling import stake_of, tell
from esper.growth.training import inner
from esper.growth.work import Work
from esper.signals.redundancy import WIDEST, Moments, elimination, shares
from esper.surgery.block import Block
from esper.surgery.shrinking import Removal, can_take_over, loudness, shrinkable, together, without

KINDS = ("units", "heads")


class Part(NamedTuple):
    """Units of a block that can only go together, and what is lost when they go after all those before them."""

    lost: float
    block: Block
    units: Tensor


def can_prune_units(work: Work) -> bool:
    """Whether there are units that may be pruned in this run."""
    return work.setup.prune == "all" and bool(blocks_of(work))


def prune_units(work: Work, reference: Losses, moments: Moments) -> None:
    """Take out the most units without which the model is as good as ``reference``, its losses before this session.

    Those that the others can stand in for go first, whatever their layer, and these take over; halving finds how many.
    """
    parts = _ranked(work, moments)
    most, verdict = _most(work, parts, reference, moments)
    if verdict is None:
        return
    removals = _removals(work, parts[:most] or parts[:1], moments)
    name = _counted(removals, {part.block for part in parts})
    work.judged(f"prune {name}", "prune", verdict)
    for removal in removals if most else ():
        _take_out(work, removal, verdict)


def _most(
    work: Work, parts: Sequence[Part], reference: Losses, moments: Moments
) -> tuple[int, Verdict | None]:
    """How many of ``parts`` may go at the most, with the verdict on them (or, where none may, on the first one)."""
    accepted, refused = 0, len(parts) + 1
    verdicts: dict[int, Verdict] = {}
    while refused - accepted > 1:
        middle = (accepted + refused) // 2
        with without(work.setup.host.model, _removals(work, parts[:middle], moments)):
            losses = work.setup.host.losses()
        looks = len(parts).bit_length()
        verdicts[middle] = work.setup.judge.prune(reference, losses, stake=stake_of(work), looks=looks)
        accepted, refused = (middle, refused) if verdicts[middle].accepted else (accepted, middle)
    return accepted, verdicts.get(accepted or 1)


def _counted(removals: Iterable[Removal], blocks: Iterable[Block]) -> str:
    """How many units, and heads, of how many."""
    gone, among = dict.fromkeys(KINDS, 0), dict.fromkeys(KINDS, 0)
    for removal in removals:
        gone[_kind(removal.block)] += _number(removal.block, len(removal.units))
    for block in blocks:
        among[_kind(block)] += _number(block, block.width)
    return " and ".join(f"{gone[kind]} of {among[kind]} {kind}" for kind in KINDS if gone[kind])


def _kind(block: Block) -> Literal["units", "heads"]:
    return "heads" if block.num_heads else "units"


def _number(block: Block, num_units: int) -> int:
    """Heads where the units are theirs."""
    return num_units // block.multiple if block.num_heads else num_units


def _ranked(work: Work, moments: Moments) -> list[Part]:
    """The parts that may go in the order in which they do; the last one of each block stays."""
    found = []
    present = blocks_of(work)
    for block in (block for block in moments.sums if block in present):
        parts = together(block)
        order = elimination(moments.of(block), loudness(work.setup.host.model, block), parts)
        found += [Part(lost, block, parts[part]) for lost, part in order[:-1]]
    return sorted(found, key=lambda part: part.lost)


def _removals(work: Work, parts: Sequence[Part], moments: Moments) -> list[Removal]:
    model = work.setup.host.model
    found = []
    for block in dict.fromkeys(part.block for part in parts):
        units = torch.cat([part.units for part in parts if part.block == block])
        taken = None
        if can_take_over(model, block):
            bias = model.get_submodule(block.consumer)._parameters.get("bias")
            taken = shares(moments.of(block), units, constant=bias is not None)
        found.append(Removal(block, units, taken))
    return found


def blocks_of(work: Work) -> list[Block]:
    """The blocks as they are now, of those that can become smaller and are not too wide to look at."""
    gone: dict[tuple[tuple[str, ...], str], int] = {}
    for op in work.record:
        if op["op"] == "prune":
            block = msgspec.convert(op["block"], Block)
            key = (block.producers, block.consumer)
            gone[key] = gone.get(key, 0) + len(op["units"])
    present = [
        msgspec.structs.replace(b, width=b.width - gone.get((b.producers, b.consumer), 0))
        for b in work.setup.parts.blocks
    ]
    model = work.setup.host.model
    there = dict(model.named_modules())
    present = [block for block in present if block.width <= WIDEST]
    left = [b for b in present if there.keys() >= {*b.producers, b.consumer} and len(together(b)) > 1]
    return [block for block in left if shrinkable(model, block)]


def _take_out(work: Work, removal: Removal, verdict: Verdict) -> None:
    training, host, block = work.setup.training, work.setup.host, removal.block
    before, units = host.macs(), sorted(removal.units.tolist())
    for averaged in map(inner, training.averaged):
        hand_over(averaged, removal, None)
    params = hand_over(training.model, removal, training.optimizer)
    work.record.append({"op": "prune", "block": msgspec.to_builtins(block), "units": units})
    work.grow(Size(-params, host.macs() - before))
    where = " and ".join(block.producers)
    counts = _number(block, len(units)), _number(block, block.width)
    tell(work, _kind(block), where, params, verdict, counts=counts)
