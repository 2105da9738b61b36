"""What an agent can do with the memory: one method a tool, its docstring for the agent to read. Knows no protocol."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from esper.apps.memory.mcp.results import (
    Belief,
    Briefing,
    Choice,
    Explanation,
    Figures,
    Guidance,
    Logged,
    Noted,
    Option,
    Package,
    Patterns,
    Proof,
    Recollection,
    Remembered,
    Started,
    ToldAnswer,
    ToldEpisode,
    ToldPattern,
)
from esper.apps.memory.mcp.trends import Trend
from esper.errors import EpisodeError
from esper.memory.analysis import By, Metric, series
from esper.memory.identity import system_clock
from esper.memory.learning.merge import trust
from esper.memory.memory import Memory
from esper.memory.records import Ending, Item, Outcome, PatternKind, Value
from esper.memory.stores.store import Filter

_EVIDENCE: Final = 20

EpisodeId = Annotated[str, Field(description="what start_episode returned")]
TaskType = Annotated[str, Field(description="kind of task, for instance bugfix")]
Domain = Annotated[str, Field(description="for instance web, ci, billing")]
Situation = Annotated[
    dict[str, Value], Field(description="features of the situation: language, framework, size ...")
]
Share = Annotated[float, Field(ge=0, le=1)]
Budget = Annotated[int, Field(ge=1, description="at most so many tokens")]
Few = Annotated[int, Field(ge=1, le=100)]


class Tools:
    """What an agent may do, and what a client may read, in one memory and its namespace."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory

    def all(self) -> tuple[Callable[..., Any], ...]:
        """The tools, in the order in which an agent meets them."""
        return (
            self.start_episode,
            self.log_step,
            self.complete_episode,
            self.recall,
            self.context,
            self.recommend,
            self.patterns,
            self.playbook,
            self.feedback,
            self.explain,
            self.analyse,
            self.hand_off,
            self.note,
            self.stats,
        )

    def start_episode(
        self,
        task: Annotated[str, Field(min_length=1, description="what is to be done, in words")],
        task_type: TaskType = "",
        domain: Domain = "",
        context: Situation | None = None,
        tags: list[str] | None = None,
    ) -> Started:
        """Begin to record a task. Call context first to know what helped before; log_step after each thing you do."""
        features = _features(context)
        recording = self._memory.episode(
            task,
            task_type=task_type,
            domain=domain,
            namespace=self._memory.namespace,
            tags=tags or (),
            **features,
        )
        return Started(episode=recording.id)

    def log_step(  # noqa: PLR0913 - a tool's parameters are its form
        self,
        episode: EpisodeId,
        tool: Annotated[str, Field(description="what was used")] = "",
        action: Annotated[str, Field(description="what was done with it")] = "",
        parameters: dict[str, Any] | None = None,
        result: Annotated[str | None, Field(description="what came of it")] = None,
        error: Annotated[str | None, Field(description="set when it went wrong")] = None,
        seconds: Annotated[float | None, Field(ge=0)] = None,
        tokens: Annotated[int | None, Field(ge=0)] = None,
    ) -> Logged:
        """Record one thing that was done in an open episode, failures too. It is stored when this returns."""
        recording = self._memory.resume(episode)
        receipt = recording.step(
            tool,
            action,
            parameters=parameters,
            result=result,
            error=error,
            latency=seconds,
            tokens=tokens,
        )
        return Logged(number=receipt.number, durability=receipt.durability)

    def complete_episode(
        self,
        episode: EpisodeId,
        ending: Ending,
        reason: str = "",
        share: Annotated[Share, Field(description="part done, for a partial ending")] = 0.0,
        verified: Annotated[Share | None, Field(description="what tests, CI or a rating said")] = None,
        value: Annotated[float | None, Field(description="an outcome that is a number")] = None,
        used: Annotated[list[str] | None, Field(description="recalled items that you relied on")] = None,
    ) -> ToldEpisode:
        """End an episode and learn from it. Be honest: failures teach most. Name in used what you relied on."""
        if used:
            self._memory.resume(episode).used(*used)
        outcome = Outcome(ending=ending, reason=reason, share=share, verified=verified, value=value)
        return ToldEpisode.of(self._memory.complete(episode, outcome))

    def recall(
        self,
        query: Annotated[str, Field(min_length=1, description="what is at hand, in words")],
        k: Few = 5,
        task_type: TaskType = "",
        domain: Domain = "",
        kind: Literal["episode", "note", "pattern"] | None = None,
        tags: Annotated[list[str] | None, Field(description="only what has all of these")] = None,
        episode: Annotated[str | None, Field(description="recall inside this open episode")] = None,
    ) -> Recollection:
        """Find what helps now: episodes, patterns and notes, best first, each with why it came; nothing is an answer.

        Inside an episode its own situation counts, and complete_episode can name what was used; else tell feedback.
        """
        if episode is not None:
            if kind or tags or task_type or domain:
                raise EpisodeError(
                    "an episode brings its own situation: leave out kind, tags, task_type and domain"
                )
            found = self._memory.resume(episode).recall(query, k=k)
        else:
            filter = Filter(
                namespace=self._memory.namespace, kinds=(kind,) if kind else (), all_tags=tuple(tags or ())
            )
            found = self._memory.recall(query, k=k, filter=filter, task_type=task_type, domain=domain)
        answers = [ToldAnswer.of(answer) for answer in found]
        return Recollection(
            exposure=found.exposure, relevant=found.relevant, answers=answers, notice=found.notice
        )

    def context(
        self, task: str, budget_tokens: Budget = 1_000, task_type: TaskType = "", domain: Domain = ""
    ) -> Briefing:
        """Get what to know before a task, as one text within a budget: lessons, what has worked, what to avoid."""
        found = self._memory.context(task, budget_tokens=budget_tokens, task_type=task_type, domain=domain)
        return Briefing(
            text=found.text, num_tokens=found.num_tokens, exposure=found.exposure, items=list(found.items)
        )

    def recommend(
        self,
        actions: Annotated[list[str], Field(min_length=1, description="tools or actions, as recorded")],
        context: Situation | None = None,
        after: Annotated[str, Field(description="what was done just before: 'pytest failed'")] = "",
        numeric: Annotated[bool, Field(description="mean of the outcomes' values, not a chance")] = False,
    ) -> Choice:
        """Ask which of several next actions is likely to work in a situation like this one, with 90 % intervals."""
        situation = {**(context or {}), **({"after": after} if after else {})}
        found = self._memory.advise(situation, actions, numeric=numeric)
        options = [
            Option(
                action=one.action,
                mean=one.mean,
                lower=one.lower,
                upper=one.upper,
                num_episodes=one.num_episodes,
                num_alike=one.num_exact,
                evidence=list(one.evidence),
            )
            for one in found.recommendations
        ]
        return Choice(exposure=found.exposure, actions=options)

    def patterns(
        self, kind: PatternKind | None = None, task_type: TaskType = "", domain: Domain = "", limit: Few = 20
    ) -> Patterns:
        """List what several episodes showed, by trust: sequences, decisions, recoveries, approaches, what fails."""
        filter = Filter(
            namespace=self._memory.namespace,
            patterns=(kind,) if kind else (),
            task_type=task_type or None,
            domain=domain or None,
        )
        now = system_clock()
        found = self._memory.patterns(filter, limit=limit)
        return Patterns(patterns=[ToldPattern.of(item, trust(item.tally, now)) for item in found])

    def playbook(self, task_type: TaskType = "", domain: Domain = "") -> Guidance:
        """Get the most trusted way to do a kind of task, with pitfalls and proof, and rules of thumb."""
        found = self._memory.playbook(task_type=task_type, domain=domain)
        return Guidance.of(found, self._memory.heuristics())

    def feedback(
        self,
        exposure: Annotated[str, Field(description="what recall, context or recommend returned")],
        used: Annotated[list[str], Field(description="ids of the items that were relied on")],
        reward: Annotated[Share | None, Field(description="what came of it; trust moves at once")] = None,
    ) -> Noted:
        """Say what of a recall was used and how it went: what helps rises, what harms sinks and retires."""
        self._memory.feedback(exposure, used, reward=reward)
        return Noted(num_items=len(used))

    def explain(self, item: Annotated[str, Field(description="id of something recalled")]) -> Explanation:
        """Ask why something is trusted as far as it is: the episodes that prove it, and what came of each use."""
        found = self._item(item)
        belief = trust(found.tally, system_clock())
        sightings = self._memory.store.sightings
        proof = sightings.evidence(found.signature, _EVIDENCE) if found.signature is not None else []
        rewards = [use.reward for use in self._memory.store.exposures.rewards(item)]
        return Explanation(
            item=item,
            text=found.lesson.text,
            trust=Belief.of(belief),
            occurrences=found.tally.occurrences,
            shown=found.tally.shown,
            used=found.tally.used,
            state=found.tally.state,
            evidence=[Proof.of(one) for one in proof],
            rewards=[reward for reward in rewards if reward is not None],
        )

    def analyse(
        self,
        metric: Annotated[Metric, Field(description="success and score in [0, 1], latency in seconds")] = (
            "success"
        ),
        task_type: TaskType = "",
        by: Annotated[By, Field(description="a point for each episode, or the mean of each day")] = "episode",
        horizon: Annotated[int, Field(ge=1, le=100, description="forecast so many points")] = 5,
    ) -> Trend:
        """Ask how it goes over time: changes of level, values that stand apart, what to expect. Ten points at least."""
        found = series(self._memory, metric, task_type=task_type or None, by=by)
        return Trend.of(found, horizon)

    def hand_off(
        self,
        episode: EpisodeId,
        note: Annotated[str, Field(description="what the next one must know")] = "",
        budget_tokens: Budget = 1_000,
    ) -> Package:
        """Mark where an open episode stands, and get the text with which another agent can go on."""
        self._memory.checkpoints.save(episode, note=note)
        found = self._memory.checkpoints.hand_off(episode, budget_tokens=budget_tokens)
        return Package(
            episode=episode, text=found.text, num_tokens=found.num_tokens, num_left_out=found.num_left_out
        )

    def note(
        self,
        text: Annotated[str, Field(min_length=1)],
        title: Annotated[str, Field(description="its subject, or who said it")] = "",
        tags: list[str] | None = None,
        context: Situation | None = None,
    ) -> Remembered:
        """Remember a fact in a sentence or two. What was tried belongs into an episode, not here."""
        about: dict[str, Any] = {**_features(context)}
        item = self._memory.note(
            text, title=title, tags=tags or (), namespace=self._memory.namespace, **about
        )
        return Remembered(item=item.id)

    def stats(self) -> Figures:
        """Count what there is, and see how the latest episodes went."""
        found = self._memory.upkeep.stats()
        return Figures(
            namespace=found.namespace,
            counts=found.counts,
            num_latest=found.num_latest,
            mean_reward=found.reward,
            mean_steps=found.steps,
            namespaces=list(found.namespaces),
            cache_hit_rate=self._memory.cache_report().hit_rate,
        )

    def metrics(self) -> str:
        """Figures for a monitor."""
        return self._memory.upkeep.metrics().text

    def episode(self, id: str) -> ToldEpisode:
        """An episode with its steps."""
        return ToldEpisode.of(self._memory.get(id))

    def pattern(self, id: str) -> ToldPattern:
        """A pattern or note."""
        item = self._item(id)
        return ToldPattern.of(item, trust(item.tally, system_clock()))

    def _item(self, id: str) -> Item:
        found = self._memory.store.items.get([id]).get(id)
        if found is None:
            raise EpisodeError(f"there is no item {id}: take an id that recall or patterns returned")
        return found


def _features(context: dict[str, Value] | None) -> dict[str, Value]:
    """The facade's own words cannot be features."""
    own = {"task", "task_type", "domain", "namespace", "tags", "text", "title", "thread"} & set(context or {})
    if own:
        raise EpisodeError(f"{', '.join(sorted(own))}: give it as the tool's own argument, not in context")
    return context or {}
