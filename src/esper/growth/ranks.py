"""The processes that train one model together, and what they must have in common. Decides nothing.

All ranks go through growth in lockstep. What they see differs, each has batches of its own, so sums are taken over all
ranks before anything is decided; rank 0 decides; and what is changed is compared afterwards. Before every exchange the
ranks tell each other whether they are well, so that one that fails stops all of them.
"""

from __future__ import annotations

import copy
import pickle
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import Optimizer

from esper.errors import RankError
from esper.surgery.graft import Graft

T = TypeVar("T")
PATIENCE = timedelta(minutes=5)
FAREWELL = timedelta(seconds=20)


class Ranks(ABC):
    """What growth asks of the other processes. Every rank calls the same methods in the same order.

    Where every rank holds the whole model the last of them have nothing to do.
    """

    size: int
    leads: bool
    can_resize: bool  # whether layers of the host may become smaller while it trains

    @abstractmethod
    def mean(self, tensors: Sequence[Tensor]) -> None:
        """Replace every tensor by its mean over the ranks."""

    @abstractmethod
    def gather(self, value: T) -> list[T]:
        """What each rank has, by rank."""

    @abstractmethod
    def decided(self, decide: Callable[[], T]) -> T:
        """What rank 0 says; ``decide`` is called there only."""

    @abstractmethod
    def compare(self, model: nn.Module) -> None:
        """Raise RankError when what every rank holds whole of ``model`` is not the same on all, to the bit."""

    @abstractmethod
    def join(self, graft: Graft, optimizer: Optimizer) -> None:
        """From now on ``graft``, in the live model, is trained like the host; ``optimizer`` holds its parameters."""

    @abstractmethod
    def apart(self) -> AbstractContextManager[object]:
        """A context for passes of our own: no gradients are exchanged, and the wrapper is left as it was."""

    @abstractmethod
    def together(self) -> AbstractContextManager[object]:
        """A context in which an error on one rank becomes an error on all."""

    def whole(self, optimizer: Optimizer) -> AbstractContextManager[object]:  # noqa: ARG002 - of no use here
        """A context in which this process holds all of the layers that grafts are at, and their state: it does anyway.

        The model must not be called inside, and what became of the layers may be compared between the ranks.
        """
        return nullcontext()

    def copied(self, graft: Graft) -> Graft:
        """A copy of an attached graft that this process holds all of, to be trained apart."""
        return copy.deepcopy(graft)

    def refill(self, graft: Graft, other: Graft) -> None:
        """Give ``graft``, which has been joined, the values of such a copy."""
        graft.load_state_dict(other.state_dict())

    def share_of(self, state: dict[str, Any], parameter: nn.Parameter) -> dict[str, Any]:  # noqa: ARG002 - of no use here
        """What this process keeps of the optimizer's ``state`` of a whole ``parameter``: all."""
        return state

    def read(self, parameters: Sequence[Tensor]) -> Sequence[Tensor]:
        """What the latest pass of the model read where these ``parameters`` of it stand: themselves."""
        return parameters


class Alone(Ranks):
    """One process."""

    size = 1
    leads = True
    can_resize = True

    def mean(self, tensors: Sequence[Tensor]) -> None:
        """They are their own mean."""

    def gather(self, value: T) -> list[T]:
        """Its own."""
        return [value]

    def decided(self, decide: Callable[[], T]) -> T:
        """Its own decision."""
        return decide()

    def compare(self, model: nn.Module) -> None:
        """There is nothing to compare with."""

    def join(self, graft: Graft, optimizer: Optimizer) -> None:
        """There is nobody to join."""

    def apart(self) -> AbstractContextManager[object]:
        """Nothing is exchanged anyway."""
        return nullcontext()

    def together(self) -> AbstractContextManager[object]:
        """Errors are its own."""
        return nullcontext()


class Many(Ranks):
    """Several processes; decisions travel over a gloo group of their own, so that no exchange of the user's interferes.

    A rank that does not answer for ``PATIENCE`` counts as lost.
    """

    def __init__(self, members: Sequence[int]) -> None:
        self._members = list(members)
        self._decisions = dist.new_group(self._members, timeout=PATIENCE, backend="gloo")
        self.size = len(members)
        self.leads = dist.get_rank() == self._members[0]

    def mean(self, tensors: Sequence[Tensor]) -> None:
        """In float32 at least, all in one message."""
        if not tensors:
            return
        self._all_well()
        flat = torch.cat([t.detach().reshape(-1).to("cpu", _wide(t.dtype)) for t in tensors])
        with named():
            dist.all_reduce(flat, group=self._decisions)
        parts = (flat / self.size).split([t.numel() for t in tensors])
        with torch.no_grad():
            for tensor, part in zip(tensors, parts, strict=True):
                tensor.copy_(part.view_as(tensor))

    def gather(self, value: T) -> list[T]:
        """By pickle: the ranks of a job trust each other."""
        self._all_well()
        found: list[T] = [value] * self.size
        with named():
            dist.all_gather_object(found, value, group=self._decisions)
        return found

    def decided(self, decide: Callable[[], T]) -> T:
        """Broadcast from the first rank of the group."""
        said: list[Any] = [decide() if self.leads else None]
        self._all_well()
        with named():
            dist.broadcast_object_list(said, src=self._members[0], group=self._decisions)
        decision: T = said[0]
        return decision

    def compare(self, model: nn.Module) -> None:
        """By checksum."""
        sums = self.gather([_checksum(p) for p in self._whole(model)])
        if any(other != sums[0] for other in sums):
            raise RankError(
                "the ranks have drifted apart: their parameters differ. Wrap the model before Grower is made, seed "
                "every rank alike, and step the optimizer on all of them"
            )

    @contextmanager
    def together(self) -> Iterator[None]:
        """One that fails says so at the next exchange; the others raise RankError there."""
        try:
            yield
        except RankError:
            raise
        except Exception as error:
            self._say_goodbye(error)
            raise

    def _whole(self, model: nn.Module) -> Iterable[Tensor]:
        """The parameters of ``model`` of which every rank holds all values."""
        return model.parameters()

    def _all_well(self, complaint: str = "", *, timeout: timedelta = PATIENCE) -> None:
        """Tell the others that this rank is well, or not, and raise when another one is not."""
        words = complaint.encode()[:200].ljust(200)
        own = torch.frombuffer(bytearray(words), dtype=torch.uint8)
        found = [torch.empty_like(own) for _ in range(self.size)]
        with named():
            dist.all_gather(found, own, group=self._decisions, async_op=True).wait(timeout)
        said = [bytes(part.tolist()).decode(errors="replace").strip() for part in found]
        for rank, reason in zip(self._members, said, strict=True):
            if reason and not complaint:
                raise RankError(f"rank {rank} failed, so growth stops on all ranks: {reason}")

    def _say_goodbye(self, error: Exception) -> None:
        try:
            self._all_well(f"{type(error).__name__}: {error}", timeout=FAREWELL)
        except RankError as lost:
            error.add_note(f"the other ranks could not be told: {lost}")


@contextmanager
def named() -> Iterator[None]:
    """What torch raises when another rank is gone says little; this says what to do."""
    try:
        yield
    except (dist.DistError, RuntimeError, pickle.PickleError) as error:
        raise RankError(
            f"another rank no longer answers ({error}): start the job again and resume from the last checkpoint"
        ) from error


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


def _checksum(parameter: Tensor) -> int:
    return zlib.crc32(parameter.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
