"""Facts about growth, one frozen type each; they are written to a run's ``events.jsonl``. Knows nobody who reads them.

``candidate`` is always ``<site> <recipe>``, for example ``fc1 conv1d(channels=25)``. Losses are in the units of
``evaluate``; steps are optimizer steps counted from 1; parameters and multiply-adds (MACs, per example) are exact.
"""

from __future__ import annotations

import msgspec


class Event(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """Something that happened at optimizer step ``step``."""

    step: int


class Signal(msgspec.Struct, frozen=True, kw_only=True):
    """What one site says of itself, averaged over a sensing window; ratios lie in [0, 1].

    ``novelty_gain`` is -8192, which is less than any other, where it could not be measured.
    """

    site: str
    variance: float
    dead_ratio: float
    correlation: float
    effective_rank: float
    gradient_norm: float
    novelty_gain: float
    health: float


class Score(msgspec.Struct, frozen=True, kw_only=True):
    """What the shadow says of one candidate: ``score = gain * max(r2, 0)``; of training data if not ``held_out``."""

    candidate: str
    site: str
    gain: float
    r2: float
    score: float
    params: int
    macs: int
    held_out: bool = True


class Sensed(Event, frozen=True):
    """A sensing window ended: the signals of every site."""

    signals: tuple[Signal, ...]


class Scored(Event, frozen=True):
    """A shadow round ended: every candidate's score, best first, and those that go to trial."""

    scores: tuple[Score, ...]
    chosen: tuple[str, ...]


class Judged(Event, frozen=True):
    """A paired held-out comparison of host against host-with-graft (or host-with-cut, or host-without-a-part).

    ``gain`` is the mean of (host loss - grafted loss); ``lower`` its lower confidence bound at level ``alpha``;
    ``price`` what it must exceed. ``detectable`` is the smallest gain that this many examples could have shown.
    ``unsettled``: the price is paid, but the host itself learns so fast that the trial goes on.
    """

    candidate: str
    kind: str
    num_examples: int
    gain: float
    standard_error: float
    lower: float
    alpha: float
    price: float
    detectable: float
    host_loss: float
    accepted: bool
    reason: str
    unsettled: bool = False


class Attached(Event, frozen=True):
    """A graft joined the live model under ``path``."""

    candidate: str
    path: str
    params: int
    macs: int
    total_params: int
    total_macs: int


class Refused(Event, frozen=True):
    """A candidate, or a whole round, ended without a trace in the model."""

    candidate: str
    reason: str


class Spared(Event, frozen=True):
    """A trial that was not held: in ``num_episodes`` situations like this one such trials were refused.

    ``chance`` is how likely it was to be kept, ``upper`` the upper end of its interval, ``usual`` the chance of any
    trial. ``evidence`` names refusals in the memory, ``runs`` the runs that they were recorded in.
    """

    candidate: str
    chance: float
    upper: float
    usual: float
    num_episodes: int
    evidence: tuple[str, ...]
    runs: tuple[str, ...]


class Cut(Event, frozen=True):
    """The own path of a site, which a graft made useless, was taken out."""

    site: str
    params: int
    total_params: int
    total_macs: int


class Merged(Event, frozen=True):
    """A graft that is linear melted into the linear layer beside it: the same function with fewer parameters."""

    candidate: str
    params: int
    total_params: int
    total_macs: int


class Widened(Event, frozen=True):
    """Widening grafts became units of the model's own ``layers``: the same function.

    ``params`` are the zeros that were added where units of two of them meet.
    """

    layers: tuple[str, ...]
    num_grafts: int
    params: int
    total_params: int
    total_macs: int


class Pruned(Event, frozen=True):
    """A part that held-out data show to be of no use was taken out.

    ``what``: ``graft``; ``units``, or ``heads`` of attention, ``num_removed`` of the ``num_units`` that ``where`` made;
    or ``branch``, a module that is now the identity. By all that was pruned at this step the held-out loss rose by
    ``increase``, at most by ``upper``, which is less than ``margin``.
    """

    what: str
    where: str
    num_removed: int
    num_units: int
    params: int
    increase: float
    upper: float
    margin: float
    total_params: int
    total_macs: int


class Recompiled(Event, frozen=True):
    """After a change of the network torch compiled ``num_graphs`` pieces anew before this step, in ``seconds``."""

    num_graphs: int
    seconds: float


class RolledBack(Event, frozen=True):
    """The guard put everything back to the state of step ``to_step``; the steps since are lost."""

    to_step: int
    path: str
    reason: str


class Folded(Event, frozen=True):
    """``finish()`` turned every graft into plain PyTorch."""

    total_params: int
    num_grafts: int


class Ended(Event, frozen=True):
    """No more growth in this run, and why."""

    reason: str


AnyEvent = (
    Sensed
    | Scored
    | Judged
    | Attached
    | Refused
    | Spared
    | Cut
    | Merged
    | Widened
    | Pruned
    | Recompiled
    | RolledBack
    | Folded
    | Ended
)
