"""What rests in the memory: one frozen type a fact. Knows neither how it is stored nor how it is learned.

All times are integer nanoseconds since the epoch, UTC; latencies are seconds. Ids are UUIDv7 texts, which sort by time.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

Value = str | int | float | bool
State = Literal["open", "completed", "abandoned"]
Ending = Literal["success", "partial", "failure", "abstained"]
Durability = Literal["queued", "process", "power"]
PatternKind = Literal["sequence", "decision", "recovery", "approach", "antipattern"]
ItemKind = Literal["episode", "note", "pattern", "heuristic", "playbook"]
ItemState = Literal["active", "retired"]


class Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """A fact that rests; equal fields make equal records."""


class Step(Record, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One thing that was done: ``number`` counts from 1; ``result`` and ``parameters`` are JSON-like.

    An ``error`` says that the step went wrong; ``latency`` is in seconds.
    """

    number: int
    tool: str = ""
    action: str = ""
    parameters: dict[str, Any] | None = None
    result: Any = None
    error: str | None = None
    latency: float | None = None
    tokens: int | None = None
    at: int = 0


class Outcome(Record, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """How an episode ended by the agent's own word, and what stronger evidence said.

    ``share`` is the part done of a partial success, in [0, 1]. ``verified`` is an external judgement in [0, 1] (tests,
    CI, a rating), ``None`` where nobody looked. ``value`` is an outcome that is a number, in the task's own unit.
    """

    ending: Ending
    reason: str = ""
    share: float = 0.0
    verified: float | None = None
    value: float | None = None

    @property
    def claimed(self) -> float:
        """What the agent says it reached, in [0, 1]."""
        return {"success": 1.0, "partial": self.share, "failure": 0.0, "abstained": 0.0}[self.ending]

    @property
    def reward(self) -> float:
        """What was reached, in [0, 1]: where somebody looked, their judgement counts for 0.8, the claim for 0.2."""
        return self.claimed if self.verified is None else 0.2 * self.claimed + 0.8 * self.verified


class Score(Record, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """Parts that add up to ``total``, which lies in [0, 1]."""

    outcome: float = 0.0
    efficiency: float = 0.0
    recovery: float = 0.0
    verification: float = 0.0

    @property
    def total(self) -> float:
        """The sum of the parts."""
        return self.outcome + self.efficiency + self.recovery + self.verification


class Reflection(Record, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """What worked, what failed, and what to do next time; a line each."""

    worked: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()
    advice: tuple[str, ...] = ()


class Opening(Record, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """What is known of a task when somebody sets out to do it."""

    task: str
    task_type: str = ""
    domain: str = ""
    namespace: str = "default"
    context: dict[str, Value] = {}
    tags: tuple[str, ...] = ()

    @property
    def situation(self) -> dict[str, Value]:
        """The context with task type and domain, where those are known."""
        known = {"task_type": self.task_type, "domain": self.domain}
        return {name: value for name, value in known.items() if value} | self.context


class Episode(Opening, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """A task that somebody tried. ``credit`` holds the value of each of the last ``len(credit)`` steps, in [-1, 1]."""

    id: str
    state: State = "open"
    started: int = 0
    ended: int | None = None
    num_steps: int = 0
    outcome: Outcome | None = None
    score: Score | None = None
    reflection: Reflection | None = None
    credit: tuple[float, ...] = ()
    steps: tuple[Step, ...] = ()


class Receipt(msgspec.Struct, frozen=True, gc=False):
    """What was acknowledged: the step's number, and how safe it is.

    ``queued`` is in this process's hands only; ``process`` survives ``kill -9``; ``power`` survives a power loss.
    """

    number: int
    durability: Durability


class Evidence(Record, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """Where something was seen: steps ``first`` to ``last`` of an episode, and the reward that came of it."""

    episode: str
    first: int
    last: int
    reward: float


class Lesson(Record, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """What an item says: when ``condition`` holds, these ``actions`` (in order); ``instead`` of what fails, do this.

    A note is its ``text`` and, where it has one, its ``title``. ``unless`` says when not to, ``pitfalls`` what goes
    wrong, ``expected`` what comes of it.
    """

    text: str
    condition: str = ""
    actions: tuple[str, ...] = ()
    instead: tuple[str, ...] = ()
    unless: str = ""
    pitfalls: tuple[str, ...] = ()
    expected: str = ""
    context: dict[str, Value] = {}
    title: str = ""


class Tally(msgspec.Struct, frozen=True, gc=False):
    """What speaks for and against an item: pseudo-counts without the prior, as they were worth at ``touched``.

    ``occurrences`` counts distinct episodes, ``shown`` and ``used`` recalls.
    """

    successes: float = 0.0
    failures: float = 0.0
    occurrences: int = 0
    shown: int = 0
    used: int = 0
    touched: int = 0
    last_used: int | None = None
    state: ItemState = "active"


class Item(Record, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """Anything that can be recalled, with the trust that it has earned.

    ``pattern`` and ``signature`` are set for patterns only; an episode's lesson is its task. What has the same
    ``thread`` was said one after the other.
    """

    id: str
    kind: ItemKind
    lesson: Lesson
    namespace: str = "default"
    task_type: str = ""
    domain: str = ""
    pattern: PatternKind | None = None
    signature: int | None = None
    thread: str = ""
    created: int = 0
    score: float | None = None
    tally: Tally = Tally()


class Exposure(Record, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """What was returned for a query, best first, and in which episode."""

    id: str
    query: str
    items: tuple[str, ...]
    namespace: str = "default"
    episode: str | None = None
    at: int = 0


class Feedback(Record, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """That a shown item was used, and the reward in [0, 1] that came of it (``None``: not known yet)."""

    exposure: str
    item: str
    reward: float | None = None
    at: int = 0


class Relation(Record, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """``source`` stands in relation ``type`` to ``target``; both are ids of episodes or items."""

    type: str
    source: str
    target: str
    created: int = 0


class Checkpoint(Record, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """Where an open episode stood after step ``number``, so that another agent can go on."""

    id: str
    episode: str
    number: int
    note: str = ""
    created: int = 0
