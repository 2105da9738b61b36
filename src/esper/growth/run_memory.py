"""A memory as one run uses it: each decision is written once, and the same question has the same answer.

Does not know what is grown. A memory that cannot be read or written never stops a training run: it is left alone from
then on, with a warning.
"""

from __future__ import annotations

import os
import secrets
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec

from esper.errors import EpisodeError, MemoryStoreError, RunError
from esper.growth.episodes import Entry
from esper.memory.memory import Memory
from esper.memory.records import Value
from esper.memory.stores.store import Filter

R = TypeVar("R")
HALF = 0.5
_MANY = 100_000


class Answer(msgspec.Struct, frozen=True):
    """What is known of an action: the chance that it succeeds, with the upper end of its interval.

    Of the features that were asked for, ``num_matched`` are equal in the ``num_episodes`` most similar situations.
    ``evidence`` names those episodes among them, at most ten, in which it failed; ``runs`` goes with it, one for one.
    """

    mean: float
    upper: float
    num_episodes: int
    num_matched: int
    evidence: tuple[str, ...] = ()
    runs: tuple[str, ...] = ()


class _Line(msgspec.Struct, frozen=True):
    question: str
    answer: Answer


class RunMemory:
    """The memory of one run.

    Args:
        memory: what is asked, and where episodes go.
        run: the run's name, by which its episodes are found again; drawn if it is not given.
        trained: what is being trained, in a word.
        answers: a file that keeps every answer as it is given, so that a run which goes on reads what it has read.

    Raises:
        RunError: that file cannot be read.
    """

    def __init__(
        self, memory: Memory, *, run: str = "", trained: str = "a network", answers: Path | None = None
    ) -> None:
        self.memory = memory
        self.run = run or secrets.token_hex(4)
        self.trained = trained
        self._file = answers
        self._answers = _read(answers) if answers is not None and answers.exists() else {}
        self._written: set[str] | None = None
        self._works = True

    def ask(self, context: Mapping[str, Value], action: str) -> Answer | None:
        """What is known of an action in such a situation; ``None`` when the memory cannot be read."""
        question = msgspec.json.encode([context, action], order="deterministic").decode()
        if question not in self._answers:
            answer = self._tried(lambda: self._asked(context, action))
            if answer is None:
                return None
            self._answers[question] = answer
            self._keep(_Line(question, answer))
        return self._answers[question]

    def runs_of(self, evidence: Sequence[str]) -> tuple[str, ...]:
        """The runs in which these episodes were recorded, as the answers have told."""
        told = {
            id: run
            for answer in self._answers.values()
            for id, run in zip(answer.evidence, answer.runs, strict=True)
        }
        return tuple(dict.fromkeys(told[id] for id in evidence if told.get(id)))

    def write(self, entry: Entry) -> None:
        """Write an episode, unless this run wrote it before it was interrupted."""
        self._tried(lambda: self._write(entry))

    def _asked(self, context: Mapping[str, Value], action: str) -> Answer:
        told = self.memory.advise(context, [action]).best
        seen = self.memory.get_many(told.evidence, steps=False)
        failed = {id: one for id, one in seen.items() if one.outcome and one.outcome.reward < HALF}
        return Answer(
            mean=told.mean,
            upper=told.upper,
            num_episodes=told.num_exact,
            num_matched=told.num_matched,
            evidence=tuple(failed),
            runs=tuple(str(episode.context.get("run", "")) for episode in failed.values()),
        )

    def _write(self, entry: Entry) -> None:
        if self._written is None:
            mine = Filter(namespace=self.memory.namespace, all_tags=(self.run,))
            known = self.memory.episodes(mine, limit=_MANY)
            self._written = {str(episode.context.get("key")) for episode in known}
        if entry.key in self._written:
            return
        context = {**entry.context, "run": self.run, "key": entry.key}
        episode = self.memory.episode(
            entry.task,
            task_type=entry.task_type,
            domain="growth",
            namespace=self.memory.namespace,
            tags=(self.run,),
            **context,
        )
        for done in entry.steps:
            episode.step(done.tool, done.action, result=done.result, error=done.error)
        episode.end(entry.outcome)
        self._written.add(entry.key)

    def _keep(self, line: _Line) -> None:
        if self._file is None:
            return
        try:
            with self._file.open("ab") as file:
                file.write(msgspec.json.encode(line) + b"\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise RunError(f"cannot write {self._file}: {error.strerror}") from error

    def _tried(self, work: Callable[[], R]) -> R | None:
        if not self._works:
            return None
        try:
            return work()
        except (MemoryStoreError, EpisodeError) as error:
            self._works = False
            warnings.warn(f"growth goes on without its memory: {error}", stacklevel=4)
            return None


def _read(path: Path) -> dict[str, Answer]:
    """Every line; the last one may have been cut by a kill, and is taken away."""
    try:
        content = path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if whole != content:
            os.truncate(path, len(whole))
        found = [msgspec.json.decode(line, type=_Line) for line in whole.splitlines()]
    except (OSError, msgspec.DecodeError) as error:
        raise RunError(f"{path} cannot be read: {error}; delete it, and the memory is asked again") from error
    return {line.question: line.answer for line in found}
