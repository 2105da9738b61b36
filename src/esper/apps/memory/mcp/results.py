"""What the tools return: typed, so that a client knows the shape before it asks. Knows no protocol."""

from __future__ import annotations

import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from esper.memory.learning.trust import Trust
from esper.memory.recall.answers import Answer
from esper.memory.recall.playbooks import Heuristic, Playbook
from esper.memory.records import Episode, Evidence, Item, PatternKind, Step


class Result(BaseModel):
    """A fact that is told."""

    model_config = ConfigDict(frozen=True)


class Started(Result):
    """An episode has begun."""

    episode: str = Field(description="its id: give it to log_step and complete_episode")


class Logged(Result):
    """A step is stored."""

    number: int
    durability: Literal["queued", "process", "power"] = Field(description="how safe it is now")


class Belief(Result):
    """A chance with its 90 % interval."""

    mean: float
    lower: float
    upper: float

    @classmethod
    def of(cls, trust: Trust) -> Belief:
        """From the memory's own."""
        return cls(mean=trust.mean, lower=trust.lower, upper=trust.upper)


class ToldStep(Result):
    """One step of an episode."""

    number: int
    tool: str
    action: str
    result: str | None
    error: str | None

    @classmethod
    def of(cls, step: Step) -> ToldStep:
        """The result as a text."""
        result = None if step.result is None else str(step.result)
        return cls(number=step.number, tool=step.tool, action=step.action, result=result, error=step.error)


class ToldEpisode(Result):
    """An episode: what was tried, how it went, what was learned."""

    episode: str
    task: str
    task_type: str
    domain: str
    context: dict[str, str | int | float | bool]
    tags: list[str]
    state: Literal["open", "completed", "abandoned"]
    started: datetime.datetime
    num_steps: int
    ending: Literal["success", "partial", "failure", "abstained"] | None
    reason: str
    score: float | None
    score_parts: dict[str, float]
    worked: list[str]
    failed: list[str]
    advice: list[str]
    steps: list[ToldStep] = Field(default_factory=list)

    @classmethod
    def of(cls, episode: Episode) -> ToldEpisode:
        """With the steps that it holds."""
        told, score, outcome = episode.reflection, episode.score, episode.outcome
        parts = ("outcome", "efficiency", "recovery", "verification")
        values = (score.outcome, score.efficiency, score.recovery, score.verification) if score else ()
        return cls(
            episode=episode.id,
            task=episode.task,
            task_type=episode.task_type,
            domain=episode.domain,
            context=episode.context,
            tags=list(episode.tags),
            state=episode.state,
            started=datetime.datetime.fromtimestamp(episode.started / 1e9, datetime.UTC),
            num_steps=episode.num_steps,
            ending=outcome.ending if outcome else None,
            reason=outcome.reason if outcome else "",
            score=score.total if score else None,
            score_parts=dict(zip(parts, values, strict=False)),
            worked=list(told.worked) if told else [],
            failed=list(told.failed) if told else [],
            advice=list(told.advice) if told else [],
            steps=[ToldStep.of(step) for step in episode.steps],
        )


class ToldAnswer(Result):
    """One thing that was recalled."""

    item: str = Field(description="its id: give it to feedback, complete_episode (used) or explain")
    kind: Literal["episode", "note", "pattern", "heuristic", "playbook"]
    pattern: PatternKind | None
    text: str
    total: float
    why: str = Field(description="the parts that add up to the total, largest first")
    trust: Belief

    @classmethod
    def of(cls, answer: Answer) -> ToldAnswer:
        """From the memory's own."""
        return cls(
            item=answer.id,
            kind=answer.item.kind,
            pattern=answer.item.pattern,
            text=answer.text,
            total=answer.total,
            why=answer.why,
            trust=Belief.of(answer.trust),
        )


class Recollection(Result):
    """What was recalled, best first; empty when nothing is relevant."""

    exposure: str = Field(description="give it to feedback")
    relevant: bool
    answers: list[ToldAnswer]
    notice: str = Field(default="", description="what was amiss while searching")


class Briefing(Result):
    """A text to know before a task."""

    text: str
    num_tokens: int
    exposure: str
    items: list[str]


class ToldPattern(Result):
    """What several episodes showed."""

    item: str
    pattern: PatternKind | None
    text: str
    condition: str
    actions: list[str]
    instead: list[str]
    trust: Belief
    occurrences: int = Field(description="distinct episodes in which it was seen")
    used: int = Field(description="recalls that were relied on")
    state: Literal["active", "retired"]

    @classmethod
    def of(cls, item: Item, trust: Trust) -> ToldPattern:
        """With the trust of now."""
        lesson, tally = item.lesson, item.tally
        return cls(
            item=item.id,
            pattern=item.pattern,
            text=lesson.text,
            condition=lesson.condition,
            actions=list(lesson.actions),
            instead=list(lesson.instead),
            trust=Belief.of(trust),
            occurrences=tally.occurrences,
            used=tally.used,
            state=tally.state,
        )


class Patterns(Result):
    """Patterns by trust."""

    patterns: list[ToldPattern]


class Proof(Result):
    """Where something was seen."""

    episode: str
    first_step: int
    last_step: int
    reward: float

    @classmethod
    def of(cls, evidence: Evidence) -> Proof:
        """From the memory's own."""
        return cls(
            episode=evidence.episode,
            first_step=evidence.first,
            last_step=evidence.last,
            reward=evidence.reward,
        )


class Rule(Result):
    """A rule of thumb."""

    condition: str
    action: list[str]
    confidence: float
    rather_than: list[str]
    item: str

    @classmethod
    def of(cls, heuristic: Heuristic) -> Rule:
        """From the memory's own."""
        return cls(
            condition=heuristic.condition,
            action=list(heuristic.action),
            confidence=heuristic.confidence,
            rather_than=list(heuristic.rather_than),
            item=heuristic.item,
        )


class Guidance(Result):
    """How a kind of task is done; without steps where nothing is known yet."""

    steps: list[str] = Field(default_factory=list)
    when: str = ""
    unless: list[str] = Field(default_factory=list)
    pitfalls: list[str] = Field(default_factory=list)
    expected: str = ""
    trust: Belief | None = None
    evidence: list[Proof] = Field(default_factory=list)
    heuristics: list[Rule] = Field(default_factory=list)

    @classmethod
    def of(cls, playbook: Playbook | None, heuristics: list[Heuristic]) -> Guidance:
        """Both, or what there is."""
        rules = [Rule.of(one) for one in heuristics]
        if playbook is None:
            return cls(heuristics=rules)
        return cls(
            steps=list(playbook.steps),
            when=playbook.when,
            unless=list(playbook.unless),
            pitfalls=list(playbook.pitfalls),
            expected=playbook.expected,
            trust=Belief.of(playbook.trust),
            evidence=[Proof.of(one) for one in playbook.evidence],
            heuristics=rules,
        )


class Noted(Result):
    """How many items were noted as used."""

    num_items: int


class Remembered(Result):
    """A note is stored."""

    item: str


class Explanation(Result):
    """Why an item is trusted as far as it is."""

    item: str
    text: str
    trust: Belief
    occurrences: int
    shown: int
    used: int
    state: Literal["active", "retired"]
    evidence: list[Proof]
    rewards: list[float] = Field(description="what came of each use, oldest first")


class Package(Result):
    """What the next agent must know to go on with an episode."""

    episode: str
    text: str
    num_tokens: int
    num_left_out: int = Field(description="steps that did not fit")


class Option(Result):
    """One action and what is likely to come of it."""

    action: str
    mean: float
    lower: float
    upper: float
    num_episodes: int = Field(description="episodes that know the action")
    num_alike: int = Field(description="of these, in the most similar situation")
    evidence: list[str]


class Choice(Result):
    """Actions, the most promising first."""

    exposure: str
    actions: list[Option]


class Figures(Result):
    """How the memory is doing."""

    namespace: str
    counts: dict[str, int]
    num_latest: int
    mean_reward: float | None
    mean_steps: float | None
    namespaces: list[str]
    cache_hit_rate: float = Field(description="share of recalls that this server had the answer to")
