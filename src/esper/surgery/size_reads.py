"""Finds blocks whose sizes somebody reads, and who would notice that they change. Does not know how blocks are found.

``self.fc.out_features`` in a forward pass is a plain number to whoever traces it. So it is tried: the layers say that
they are larger than they are, which no forward pass of torch's own believes, and the pass is made once more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

from torch import Tensor, nn

from esper.surgery.block import Block
from esper.surgery.blocks import Blocks
from esper.surgery.one_pass import one_pass
from esper.surgery.structure import first_input, first_output

SIZES: Mapping[type[nn.Module], tuple[str, str]] = {
    nn.Linear: ("in_features", "out_features"),
    nn.Conv1d: ("in_channels", "out_channels"),
    nn.Conv2d: ("in_channels", "out_channels"),
    nn.BatchNorm1d: ("num_features", "num_features"),
    nn.BatchNorm2d: ("num_features", "num_features"),
}
"""Attributes that say how many units a layer reads, and makes, and that its own forward pass does not read."""
TIMES = 3
TOLERANCE = 1e-3  # of the mean size: rounding stays below it, a wrong size does not


class _Look(NamedTuple):
    """What is compared of a tensor."""

    shape: tuple[int, ...]
    mean: float
    mean_size: float

    def is_like(self, other: _Look) -> bool:
        """Whether both may be of one tensor; where numbers are not finite, nothing is said."""
        bound = TOLERANCE * max(self.mean_size, other.mean_size)
        far = abs(self.mean - other.mean) > bound or abs(self.mean_size - other.mean_size) > bound
        return self.shape == other.shape and not far


def without_read_sizes(
    model: nn.Module,
    blocks: Blocks,
    run: Callable[[], object],
    *,
    anywhere: Callable[[bool], bool] = bool,
) -> Blocks:
    """``blocks`` without those whose layers' sizes ``model`` reads.

    ``run`` makes the pass that was traced once more, isolated and in eval mode. With several processes, ``anywhere``
    says whether something holds in any of them.
    """
    if not blocks.found:
        return blocks
    read = _Search(model, blocks.found, run, anywhere).read()
    reason = "a forward pass reads how large its layers are, other than from tensors"
    left = {name: block for name, block in blocks.found.items() if name not in read}
    return replace(blocks, found=left, reasons={**blocks.reasons, **dict.fromkeys(read, reason)})


class _Search:
    """Compares passes in which the layers of some blocks lie about their sizes with one in which none does."""

    def __init__(
        self,
        model: nn.Module,
        blocks: Mapping[str, Block],
        run: Callable[[], object],
        anywhere: Callable[[bool], bool],
    ) -> None:
        self._model, self._blocks, self._run, self._anywhere = model, blocks, run, anywhere
        self._consumers = {block.consumer for block in blocks.values()}
        self._honest = self._glance(())

    def read(self) -> list[str]:
        """Names of the blocks whose sizes are read; none where every pass is another one, and nothing can be told."""
        names = list(self._blocks)
        return self._culprits(names) if self._noticed(names) and not self._noticed(()) else []

    def _culprits(self, names: list[str]) -> list[str]:
        """Those of ``names`` that are noticed alone, found by halves; together they are."""
        if len(names) == 1:
            return names
        middle = len(names) // 2
        halves = names[:middle], names[middle:]
        return [name for half in halves if self._noticed(half) for name in self._culprits(half)]

    def _noticed(self, names: Sequence[str]) -> bool:
        found = self._glance(names)
        alike = len(found) == len(self._honest) and all(map(_Look.is_like, found, self._honest))
        return self._anywhere(not alike)

    def _glance(self, lying: Sequence[str]) -> list[_Look]:
        """What goes into consumers, and out of the model."""
        looks: list[_Look] = []
        with one_pass(self._model) as stack:
            for name in self._consumers:
                hook = partial(_look_in, looks)
                handle = self._model.get_submodule(name).register_forward_pre_hook(hook, with_kwargs=True)
                stack.callback(handle.remove)
            stack.callback(self._model.register_forward_hook(partial(_look_out, looks), prepend=True).remove)
            stack.callback(_lie(self._model, [self._blocks[name] for name in lying]))
            try:
                self._run()
            except Exception:  # where a size is wrong a forward pass raises whatever its author chose
                if not lying:
                    raise
                return []
        return looks


def _lie(model: nn.Module, blocks: Iterable[Block]) -> Callable[[], None]:
    """Let layers say that they are larger than they are; what it returns takes that back."""
    ends = {(layer.module, layer.role == "consumer") for block in blocks for layer in block.layers}
    truth = []
    for name, reads in ends:
        module = model.get_submodule(name)
        if type(module) in SIZES:
            incoming, outgoing = SIZES[type(module)]
            size = incoming if reads else outgoing
            truth.append((vars(module), {size: vars(module)[size]}))
            vars(module)[size] *= TIMES

    def take_back() -> None:
        for attributes, sizes in reversed(truth):
            attributes.update(sizes)

    return take_back


def _look_in(looks: list[_Look], _: nn.Module, args: Any, kwargs: Any) -> None:
    _enter(looks, first_input(args, kwargs))


def _look_out(looks: list[_Look], _: nn.Module, __: object, output: object) -> None:
    _enter(looks, first_output(output))


def _enter(looks: list[_Look], tensor: Tensor | None) -> None:
    if tensor is not None and tensor.numel():
        plain = tensor.to_padded_tensor(0.0) if tensor.is_nested else tensor  # torch's fast path over padding
        values = plain.detach().float()
        looks.append(_Look(tuple(values.shape), float(values.mean()), float(values.abs().mean())))
