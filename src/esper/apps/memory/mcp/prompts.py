"""Texts that a user can ask a client for: how to work with the memory. Knows no protocol."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Final

from pydantic import Field


def work_on(task: Annotated[str, Field(description="what is to be done")]) -> str:
    """Do a task with the memory: look up what helped before, record each step, and end with an honest outcome."""
    return (
        f"Task: {task}\n\n"
        "1. Call context with the task, and heed what it says. Nothing relevant is an answer, too.\n"
        "2. Call start_episode with the task, its type, its domain and the features that matter.\n"
        "3. Do the task. After each thing you do, call log_step: the tool, the action, and the result or the error.\n"
        "4. When you hesitate between actions, call recommend with them and the situation.\n"
        "5. Check the result (tests, a build). Call complete_episode with the ending, the reason, what the check said\n"
        "   (verified), and in used the ids of the recalled items that you relied on."
    )


def look_back(topic: Annotated[str, Field(description="a kind of task, a tool or an error")]) -> str:
    """Say what was learned about a topic, with the evidence, and what to do differently."""
    return (
        f"Call recall with {topic!r} and k=10, then patterns and playbook for the task types that came up. Call\n"
        "explain for what surprises you. Say what works, what fails, how sure that is (intervals, episode ids), and\n"
        "what to do next time. Say so if nothing relevant is known."
    )


def take_over(episode: Annotated[str, Field(description="the id of an open episode")]) -> str:
    """Go on with an episode that another agent left open."""
    return (
        f"Call hand_off for episode {episode} and read what was done and what failed. Do not repeat what failed.\n"
        "Go on with the task: log_step after each thing you do, then complete_episode."
    )


PROMPTS: Final[tuple[Callable[..., str], ...]] = (work_on, look_back, take_over)
