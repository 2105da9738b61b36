"""An episode while it is open: its steps, and its end. Does not know what is learned from it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import count
from types import TracebackType
from typing import Any, Protocol, Self

import msgspec

from esper.errors import EpisodeError
from esper.memory.identity import Clock, new_id
from esper.memory.recall.answers import Recalled
from esper.memory.records import Durability, Episode, Opening, Outcome, Receipt, Step
from esper.memory.redaction import Redactor, valid
from esper.memory.stores.store import Store

_encode = msgspec.msgpack.Encoder(enc_hook=repr).encode
_decode = msgspec.msgpack.decode


class Journal(Protocol):
    """What an open episode writes to."""

    clock: Clock
    put: Callable[[Recording | Taken], Durability]

    def complete(self, id: str, outcome: Outcome) -> Episode:
        """End an episode and learn from it."""
        ...

    def abandon(self, id: str) -> Episode:
        """Give an episode up."""
        ...

    def expose(self, id: str, query: str, k: int) -> Recalled:
        """Recall inside an episode."""
        ...

    def use(self, id: str, items: Iterable[str]) -> None:
        """Note what was used in an episode."""
        ...


class Taken(msgspec.Struct, gc=False):
    """A step on its way: ``values`` are the encoded parameters and result, so that later changes do not reach it."""

    recording: Recording
    number: int
    at: int
    tool: str
    action: str
    values: bytes | None
    error: str | None
    latency: float | None
    tokens: int | None


class Recording:
    """An open episode; safe to use from several threads.

    As a context manager it succeeds at the end of the block unless an outcome was given; an exception fails it with the
    error as its reason, an interrupt abandons it, and both are raised again.
    """

    __slots__ = ("_id", "_journal", "_next", "_opening", "_started", "episode", "resumed")

    def __init__(self, journal: Journal, opening: Opening, *, id: str = "", last: int = 0) -> None:
        self._journal = journal
        self._opening = opening
        self._started = journal.clock()
        self._next = count(last + 1).__next__
        self._id = id
        self.resumed = bool(id)
        self.episode: Episode | None = None
        if not id:
            journal.put(self)

    @property
    def id(self) -> str:
        """The episode's id; it sorts by the time of its start."""
        if not self._id:
            self._id = new_id(self._started)
        return self._id

    def started(self) -> Episode:
        """The episode as it was at its start."""
        return Episode(id=self.id, started=self._started, **msgspec.structs.asdict(self._opening))

    def step(
        self,
        tool: str = "",
        action: str = "",
        *,
        parameters: dict[str, Any] | None = None,
        result: Any = None,
        error: str | None = None,
        latency: float | None = None,
        tokens: int | None = None,
    ) -> Receipt:
        """Note one thing that was done. An ``error`` says that it went wrong; ``latency`` is in seconds.

        When this returns, the step is as safe as the receipt's word says.

        Raises:
            EpisodeError: the episode has ended.
            MemoryStoreError: it could not be stored.
        """
        if self.episode is not None:
            raise EpisodeError(f"episode {self.id} has ended: start another one")
        number = self._next()
        journal = self._journal
        values = None if parameters is None and result is None else _values(parameters, result)
        taken = Taken(self, number, journal.clock(), tool, action, values, error, latency, tokens)
        return Receipt(number, journal.put(taken))

    def succeed(
        self, reason: str = "", *, verified: float | None = None, value: float | None = None
    ) -> Episode:
        """The task is done. ``verified`` in [0, 1] is what a check said, ``value`` an outcome that is a number."""
        return self.end(Outcome(ending="success", reason=reason, verified=verified, value=value))

    def partial(self, share: float, reason: str = "", *, verified: float | None = None) -> Episode:
        """This share of the task, in [0, 1], is done."""
        return self.end(Outcome(ending="partial", share=share, reason=reason, verified=verified))

    def fail(self, reason: str = "", *, verified: float | None = None, value: float | None = None) -> Episode:
        """The task is not done."""
        return self.end(Outcome(ending="failure", reason=reason, verified=verified, value=value))

    def abstain(self, reason: str = "") -> Episode:
        """The task was refused."""
        return self.end(Outcome(ending="abstained", reason=reason))

    def end(self, outcome: Outcome) -> Episode:
        """End with this outcome, learn from it, and give the whole episode.

        Raises:
            EpisodeError: it has ended already, or a number lies outside [0, 1].
        """
        for name, part in (("share", outcome.share), ("verified", outcome.verified)):
            if part is not None and not 0.0 <= part <= 1.0:
                raise EpisodeError(f"{name} is {part}: give a number from 0 to 1")
        self.episode = self._journal.complete(self.id, outcome)
        return self.episode

    def abandon(self) -> Episode:
        """Give up without an outcome; nothing is learned."""
        self.episode = self._journal.abandon(self.id)
        return self.episode

    def recall(self, query: str, *, k: int = 5) -> Recalled:
        """Recall what helps in this episode; what of it is then used is told by :meth:`used`."""
        return self._journal.expose(self.id, query, k)

    def used(self, *items: str) -> None:
        """These recalled items (ids) were relied on: they earn or lose trust by how the episode ends."""
        self._journal.use(self.id, items)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.episode is not None:
            return
        if error is None:
            self.succeed()
        elif isinstance(error, Exception):
            self.fail(f"{type(error).__name__}: {error}")
        else:
            self.abandon()


def _values(parameters: dict[str, Any] | None, result: Any) -> bytes:
    try:
        return _encode((parameters, result))
    except (UnicodeEncodeError, OverflowError):
        return _encode(valid(msgspec.to_builtins((parameters, result), enc_hook=repr)))


def entry_id(entry: Recording | Taken) -> str:
    """The episode that is begun, or that a step belongs to."""
    return (entry if isinstance(entry, Recording) else entry.recording).id


def write_entries(store: Store, redact: Redactor, entries: Sequence[Recording | Taken]) -> None:
    """Store what was put, in one transaction: openings before steps."""
    openings = [entry.started() for entry in entries if isinstance(entry, Recording)]
    steps = [_step_of(entry, redact) for entry in entries if isinstance(entry, Taken)]
    with store.appending():
        if openings:
            store.episodes.add([redact(opening) for opening in openings])
        if steps:
            store.episodes.add_steps(steps)


def _step_of(taken: Taken, redact: Redactor) -> tuple[str, Step]:
    parameters, result = _decode(taken.values) if taken.values else (None, None)
    step = Step(
        number=taken.number,
        tool=taken.tool,
        action=taken.action,
        parameters=parameters,
        result=result,
        error=taken.error,
        latency=taken.latency,
        tokens=taken.tokens,
        at=taken.at,
    )
    return taken.recording.id, redact(step)
